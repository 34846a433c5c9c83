"""The command line: serve, run, one command for each kind of job, models, doctor, bench.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted. What a job takes as flags is made from wire.py.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from ad_service import __version__
from ad_service.cli.job_files import JobFile, assemble, load, read_file
from ad_service.storage.blobs import Store
from ad_service.storage.settings import Settings, default_data_dir
from ad_service.worker.engine import Outcome, prepare_torch
from ad_service.worker.image_files import size_of
from blender_addon import wire
from blender_addon.wire import WireError

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

BAD_INPUT_ERRORS = (
    "model-missing",
    "model-corrupt",
    "invalid-image",
    "invalid-labels",
    "invalid-parameter",
    "invalid-request",
    "blob-missing",
    "version-mismatch",
    "too-large",
)

REMEDIES_OF_THE_ADDON = ("invalid-request", "blob-missing")
"""Errors whose remedy is of no use here: their details say what to do."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    options.line = shlex.join(["ad-service", *(sys.argv[1:] if arguments is None else arguments)])
    command: Callable[[argparse.Namespace], int] = options.command
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may have what the terminal has not
    try:
        return command(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except WireError as error:
        told = error.detail if error.code in REMEDIES_OF_THE_ADDON else error.sentence
        print(f"ad-service: {told}", file=sys.stderr)
        return BAD_INPUT if error.code in BAD_INPUT_ERRORS else FAILED
    except OSError as error:
        print(f"ad-service: {f'{error.filename}: {error.strerror}' if error.filename else error}", file=sys.stderr)
        return FAILED


def _parser() -> argparse.ArgumentParser:
    common = Parser(add_help=False)
    common.add_argument(
        "--data-dir",
        type=_data_dir,
        default=default_data_dir(),
        metavar="DIR",
        help="folder of models, pictures and jobs (default: %(default)s)",
    )
    parser = Parser(prog="ad-service", description="Tileable textures from a swatch, by attention distillation.")
    parser.add_argument("--version", action="version", version=f"ad-service {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    serve = commands.add_parser("serve", parents=[common], help="run the service that the Blender add-on talks to")
    serve.add_argument("--port", type=_port, default=0, help="0 takes a free one (default: %(default)s)")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    serve.add_argument("--token-file", type=Path, help="file with the token; needed with --host beyond this machine")
    serve.add_argument("--engine", metavar="MODULE:FUNCTION", help=argparse.SUPPRESS)
    serve.set_defaults(command=_serve)

    for kind in wire.KINDS.values():
        _add_kind(commands.add_parser(kind.name, parents=[common], help=kind.help, description=kind.help), kind)

    run = commands.add_parser("run", parents=[common], help="run a job file, or the job that a result's PNG carries")
    run.add_argument("job", type=Path, metavar="JOB.json|RESULT.png")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the result")
    run.set_defaults(command=_run)

    models = commands.add_parser("models", help="the models at hand: list, fetch, check")
    verbs = models.add_subparsers(required=True, metavar="VERB", parser_class=Parser)
    verbs.add_parser("list", parents=[common], help="what can be used as --model").set_defaults(command=_list_models)
    for verb, function, text in (
        ("fetch", _fetch_model, "download a model into the data folder"),
        ("check", _check_model, "read a model's files and say whether they are whole"),
    ):
        one = verbs.add_parser(verb, parents=[common], help=text)
        one.add_argument("name", metavar="NAME")
        one.set_defaults(command=function)

    doctor = commands.add_parser("doctor", parents=[common], help="look for what keeps the service from working")
    doctor.set_defaults(command=_doctor)

    bench = commands.add_parser("bench", help="measure speed and quality beside the paper's own schedule")
    bench.add_argument(
        "--case",
        action="append",
        metavar="NAME",
        help="pocket, sd15-small, or with a GPU sd15, sdxl; can be repeated (default: all that this machine can)",
    )
    bench.add_argument(
        "--size", action="append", type=_size, metavar="WxH", help="can be repeated (default: sizes of each case)"
    )
    bench.add_argument(
        "--reference-batches",
        type=_count,
        metavar="N",
        help="time so many batches of the paper's windows and scale them to all; 0: leave the paper out "
        "(default: in full where that is quick, else 4)",
    )
    bench.add_argument(
        "--steps",
        type=_count,
        metavar="N",
        help="steps of ours, without the paper's: how cost grows with size (default: as a job has)",
    )
    bench.add_argument("--swatch", type=Path, metavar="PNG", help="(default: the stones of the example)")
    bench.add_argument(
        "--device",
        metavar="NAME",
        help="torch's name for it; cpu allows the large cases on it, which take hours (default: the best one)",
    )
    bench.add_argument("--json", type=Path, metavar="FILE", help="file for all that was measured")
    bench.set_defaults(command=_bench)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 65535")
    return int(text)


def _data_dir(text: str) -> Path:
    return Path(text).expanduser().resolve()


# ---------------------------------------------------------------------------------------------- serve


def _serve(options: argparse.Namespace) -> int:
    from ad_service.service.security import is_loopback
    from ad_service.service.serve import serve

    token = {}
    if options.token_file is not None:
        token = {"token": _read_token(options.token_file)}
    elif not is_loopback(options.host):
        raise WireError(
            "invalid-parameter", f"--host {options.host} is open to other machines, which needs a --token-file"
        )
    try:
        serve(Settings(options.data_dir, options.host, options.port, engine=options.engine, **token))
    except RuntimeError as error:
        print(f"ad-service: {error}", file=sys.stderr)
        return FAILED
    return DONE


def _read_token(file: Path) -> str:
    token = read_file(file, "the token file").decode("ascii", "replace").strip()
    if len(token) < 16 or not token.isprintable() or " " in token:
        raise WireError(
            "invalid-parameter", f"the token in {file} must have 16 or more printable characters, no spaces"
        )
    return token


# ---------------------------------------------------------------------------------------------- jobs


def _add_kind(parser: argparse.ArgumentParser, kind: wire.JobKind) -> None:
    for picture in kind.pictures:
        if picture.required:
            parser.add_argument(picture.name, type=Path, metavar=picture.name.upper(), help=picture.help)
        else:
            parser.add_argument(f"--{picture.name}", type=Path, metavar="PNG", help=picture.help)
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="file for the result")
    parser.add_argument("--size", type=_size, metavar="WxH", help="short for --width W --height H")
    for parameter in kind.parameters:
        parser.add_argument(
            "--" + parameter.name.replace("_", "-"),
            dest=parameter.name,
            type=_argument_of(parameter),
            metavar="|".join(parameter.document().choices) or parameter.value.kind.upper(),
            help=f"{parameter.help} (default: {parameter.default})".replace("%", "%%"),
        )
    parser.set_defaults(command=_run_kind, kind=kind)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    try:
        return int(width), int(height or width)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 1024x512") from None


def _argument_of(parameter: wire.Parameter) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return parameter.parse(text)
        except WireError as error:
            raise argparse.ArgumentTypeError(error.detail) from None

    return convert


def _run_kind(options: argparse.Namespace) -> int:
    kind: wire.JobKind = options.kind
    given = {p.name: getattr(options, p.name) for p in kind.parameters}
    parameters = {name: value for name, value in given.items() if value is not None}
    if options.size is not None:
        if {"width", "height"} & set(parameters):
            raise WireError("invalid-parameter", "--size is given together with --width or --height; one is enough")
        parameters |= {"width": options.size[0], "height": options.size[1]}
    paths: dict[str, Path] = {p.name: getattr(options, p.name) for p in kind.pictures if getattr(options, p.name)}
    found = {name: (path.name, read_file(path, f"the picture {name}")) for name, path in paths.items()}
    job = assemble({"kind": kind.name, "parameters": parameters}, found)
    return _make(job, options.out, options.data_dir)


def _run(options: argparse.Namespace) -> int:
    job = load(options.job, Store(options.data_dir / "blobs"))
    out: Path = options.out / f"{options.job.stem}.png"
    if out.exists() and out.samefile(options.job):
        out = options.out / f"{options.job.stem}-again.png"
    options.out.mkdir(parents=True, exist_ok=True)
    return _make(job, out, options.data_dir)


def _make(job: JobFile, out: Path, data_dir: Path) -> int:
    """Runs a job in this process and writes its picture."""
    _expect_place(out, job)
    store_folder = data_dir / "blobs"
    began = time.monotonic()
    outcome = _follow(job, data_dir)
    for name, data in outcome.pictures.items():
        path = out if name == "image" else out.with_name(f"{out.stem}-{name}.png")
        _write(path, data, store_folder)
        print(path)
    with suppress(OSError, WireError):  # so that `run` finds them anywhere; the result is there without
        store = Store(store_folder)
        for data in job.pictures.values():
            store.put(data)
    width, height = size_of(out.name, outcome.pictures["image"])
    print(f"  {width}x{height} in {time.monotonic() - began:.1f} s")
    _print_figures(outcome.metrics, outcome.notes)
    return DONE


def _expect_place(out: Path, job: JobFile) -> None:
    """Raises WireError, before any work is done, where the result could not be written or would take a picture away."""
    if out.suffix.lower() != ".png":
        raise WireError("invalid-parameter", f"--out is {out}; results are written as .png")
    if not out.parent.is_dir():
        raise WireError("invalid-parameter", f"--out is {out}, but there is no folder {out.parent}")
    try:
        if out.exists() and out.read_bytes() in job.pictures.values():
            raise WireError("invalid-parameter", f"--out is {out}, a picture that goes in; it would be overwritten")
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise WireError("invalid-parameter", f"--out is {out}, which cannot be written: {error.strerror}") from error


def _write(path: Path, data: bytes, store_folder: Path) -> None:
    """The file appears whole or not at all. What cannot be written is not lost: the store keeps it."""
    draft = path.with_name(f".{os.getpid()}.part")
    try:
        try:
            draft.write_bytes(data)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        kept = ""
        with suppress(OSError, WireError):
            store = Store(store_folder)
            kept = f"; the picture is kept as {store.path(store.put(data))}"
        raise OSError(f"{path} cannot be written: {error.strerror}{kept}") from error


def _follow(job: JobFile, data_dir: Path) -> Outcome:
    """Goes through the steps of a job; a progress bar on a terminal, nothing in a pipe."""
    from tqdm import tqdm

    prepare_torch()
    from ad_service.worker.runner import Runner

    steps = Runner(data_dir, allow_paths=True).run(job.request, job.read, job.files)
    layout = "{desc:<32.32} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with closing(steps), tqdm(total=1.0, disable=not sys.stderr.isatty(), bar_format=layout, leave=False) as bar:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            bar.n = step.fraction
            bar.set_description_str(step.message)


def _print_figures(metrics: Mapping[str, float], notes: Sequence[str]) -> None:
    for name, value in metrics.items():
        print(f"  {name.replace('_', ' ')}: {value:.4g}")
    for note in notes:
        print(f"  note: {note}")


# ---------------------------------------------------------------------------------------------- models


def _list_models(options: argparse.Namespace) -> int:
    from ad_service.storage import models

    for model in models.available(options.data_dir):
        print(f"{model.name:<24} {model.family:<8} {model.title} ({model.licence})")
    for stray in models.strays(options.data_dir):
        print(f"{stray.name:<24} cannot be used: {stray.reason}")
    return DONE


def _fetch_model(options: argparse.Namespace) -> int:
    from ad_service.storage import models

    model = models.fetch(options.name, options.data_dir)
    print(f"{model.name}: {model.path}")
    return DONE


def _check_model(options: argparse.Namespace) -> int:
    from ad_service.storage import models

    model = models.find(options.name, options.data_dir, allow_paths=True)
    models.check(model, values=True)
    print(f"{model.name}: whole, {model.family}, {model.path}")
    return DONE


# ---------------------------------------------------------------------------------------------- doctor


def _doctor(options: argparse.Namespace) -> int:
    from ad_service.cli.doctor import examine

    sound = True
    for finding in examine(options.data_dir):
        sound = sound and finding.remedy is None
        print(f"{'ok     ' if finding.remedy is None else 'problem'} {finding.what}: {finding.value}")
        if finding.remedy is not None:
            print(f"        {finding.remedy}")
    return DONE if sound else FAILED


# ---------------------------------------------------------------------------------------------- bench


def _bench(options: argparse.Namespace) -> int:
    """Prints the table; what runs now is said on a terminal only."""
    prepare_torch()
    from ad_service.bench import benchmark
    from ad_service.worker.runner import core_errors

    wanted = benchmark.Options(
        cases=options.case,
        sizes=options.size,
        reference_batches=options.reference_batches,
        steps=options.steps or None,
        device=options.device,
    )
    swatch = benchmark.read_swatch(read_file(options.swatch, "the swatch")) if options.swatch else benchmark.example()
    if options.json is not None and not options.json.parent.is_dir():
        raise WireError("invalid-parameter", f"--json is {options.json}, but there is no folder {options.json.parent}")
    tell = partial(print, file=sys.stderr) if sys.stderr.isatty() else lambda _: None
    with core_errors():
        report = benchmark.bench(swatch, wanted, options.line, tell)
    if options.json is not None:
        options.json.write_text(report.json(), encoding="utf-8")
    print(report.markdown(), end="")
    return DONE
