"""`ad-service bench`: speed and quality compared with the paper's schedule, and the service under load."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from ad_service.cli.arguments import DONE, Commands, Parser, parse_count, parse_size
from ad_service.cli.job_files import read_file
from ad_service.worker.engine import prepare_torch
from blender_addon.wire import WireError


def add_commands(commands: Commands, common: Parser) -> None:
    parser = commands.add_parser("bench", help="measure speed and quality, compared with the paper's schedule")
    parser.add_argument(
        "what",
        nargs="?",
        choices=("schedule", "service"),
        default="schedule",
        help="schedule: a job compared with the paper's schedule; service: polls, streams, queues and cancels under "
        "load, with --size (default: %(default)s)",
    )
    parser.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        help="pocket, sd15-small, or with a GPU sd15, sdxl; can be repeated (default: all that this machine can run)",
    )
    parser.add_argument(
        "--size", action="append", type=parse_size, metavar="WxH", help="can be repeated (default: sizes of each case)"
    )
    parser.add_argument(
        "--reference-batches",
        type=parse_count,
        metavar="N",
        help="measure N batches of the paper's windows and extrapolate to all; 0: skip the paper's schedule "
        "(default: all batches where that is fast, else 4)",
    )
    parser.add_argument(
        "--steps",
        type=parse_count,
        metavar="N",
        help="run N steps of our schedule only, to see how cost grows with size (default: the steps of a job)",
    )
    parser.add_argument("--swatch", type=Path, metavar="PNG", help="(default: the stones of the example)")
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="torch device; cpu also runs the large cases on the CPU, which takes hours (default: the best one)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for all measurements")
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Prints the table; progress is shown on a terminal only."""
    if options.what == "service":
        return measure_service(options)
    prepare_torch()
    from ad_service.bench import benchmark
    from ad_service.worker.runner import core_errors

    wanted = benchmark.BenchOptions(
        cases=options.case,
        sizes=options.size,
        reference_batches=options.reference_batches,
        steps=options.steps or None,
        device=options.device,
    )
    swatch = benchmark.read_swatch(read_file(options.swatch, "the swatch")) if options.swatch else benchmark.example()
    if options.json is not None and not options.json.parent.is_dir():
        raise WireError("invalid-parameter", f"--json is {options.json}, but there is no folder {options.json.parent}")
    show = partial(print, file=sys.stderr) if sys.stderr.isatty() else lambda _: None
    with core_errors():
        report = benchmark.bench(swatch, wanted, options.line, show)
    if options.json is not None:
        options.json.write_text(report.json(), encoding="utf-8")
    print(report.markdown(), end="")
    return DONE


def measure_service(options: argparse.Namespace) -> int:
    """Prints each figure as a row as soon as it is measured, since all take minutes."""
    from ad_service.bench import benchmark
    from ad_service.bench.service_load import Figure, LoadOptions, measure

    def show(figure: Figure) -> None:
        print(f"| {figure.name} | {figure.goal} | {figure.measured} |", flush=True)

    data = read_file(options.swatch, "the swatch") if options.swatch else benchmark.EXAMPLE.read_bytes()
    size = options.size[0][0] if options.size else LoadOptions.size
    print(
        f"{os.cpu_count()} cores, {_load()} processes wanted one before\n\n| figure | goal | measured |\n|---|---|---|"
    )
    measure(LoadOptions(data, size=size), show)
    print(f"\n{_load()} processes wanted a core at the end")
    return DONE


def _load() -> str:
    """The average number of running processes in the last minute, where the system counts them."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "an unknown number of"
