"""`ad-service bench`: speed and quality compared with the paper's schedule."""

from __future__ import annotations

import argparse
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
