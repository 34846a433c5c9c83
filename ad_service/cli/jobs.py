"""One command for each kind of job, with flags made from the contract, and `run` for job files."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ad_service.cli.arguments import DONE, Commands, Parser, parse_size
from ad_service.cli.job_files import JobFile, assemble, load, read_file
from ad_service.core.steps import run as run_steps
from ad_service.storage.blobs import BlobStore
from ad_service.storage.files import atomic_writer
from ad_service.worker.engine import Outcome, Step, prepare_torch
from ad_service.worker.image_files import size_of
from blender_addon import wire
from blender_addon.wire import WireError

FILE_NAMES: dict[str, dict[str, str]] = {
    wire.ESTIMATE.name: {
        "image": "albedo.png",
        wire.map_input("normal"): "normal_gl.png",
        wire.map_input("roughness"): "roughness.png",
        wire.map_input("height"): "height.png",
    }
}
"""The files of a kind of job whose --out is a folder. Maps that were given are not written again."""


def add_commands(commands: Commands, common: Parser) -> None:
    for kind in wire.KINDS.values():
        if kind.name in wire.EDIT_KINDS:
            continue  # commands of `edit`
        name = kind.name.replace("_", "-")
        add_kind(commands.add_parser(name, parents=[common], help=kind.help, description=kind.help), kind)
    run = commands.add_parser("run", parents=[common], help="run a job file, or the job in a result's PNG")
    run.add_argument("job", type=Path, metavar="JOB.json|RESULT.png")
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the result")
    run.set_defaults(command=run_file)


def add_kind(parser: Parser, kind: wire.JobKind) -> None:
    """Adds the pictures and parameters of a job kind to a command that runs it."""
    for picture in kind.pictures:
        if picture.required:
            parser.add_argument(picture.name, type=Path, metavar=picture.name.upper(), help=picture.help)
        else:
            parser.add_argument("--" + picture.name.replace("_", "-"), type=Path, metavar="PNG", help=picture.help)
    if kind.maps_over:
        parser.add_argument(
            "--map",
            dest="maps",
            action="append",
            default=[],
            type=_parse_map,
            metavar="NAME=FILE",
            help=f"another map over the {kind.maps_over}, such as normal=wall_nor_gl.png (repeatable); known names: "
            f"{', '.join(wire.MAPS)}",
        )
    if kind.name in FILE_NAMES:
        names = ", ".join(FILE_NAMES[kind.name].values())
        parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=f"folder for {names}")
    else:
        parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="file for the result")
    parameters = {p.name for p in kind.parameters}
    if {"width", "height"} <= parameters:
        parser.add_argument("--size", type=parse_size, metavar="WxH", help="short for --width W --height H")
    for parameter in kind.parameters:
        if parameter.name == "prompt":
            parser.add_argument("prompt", type=_argument_type(parameter), metavar="PROMPT", help=parameter.help)
            continue
        parser.add_argument(
            "--" + parameter.name.replace("_", "-"),
            dest=parameter.name,
            type=_argument_type(parameter),
            metavar="|".join(parameter.document().choices) or parameter.value.kind.upper(),
            help=f"{parameter.help} (default: {parameter.default})".replace("%", "%%"),
        )
    if "scale" in parameters:
        parser.add_argument(
            "--fit", action="store_true", help="the scale that shows about a dozen of the swatch's parts (the default)"
        )
    parser.set_defaults(command=run_kind, kind=kind, size=None, fit=False, maps=[])


def _parse_map(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if not equals or not file or not wire.MAP_NAME.fullmatch(name):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FILE with a NAME of a to z, 0 to 9 and _")
    return name, Path(file)


def _argument_type(parameter: wire.Parameter) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            return parameter.parse(text)
        except WireError as error:
            raise argparse.ArgumentTypeError(error.detail) from None

    return convert


def run_kind(options: argparse.Namespace) -> int:
    """Runs a job from pictures and flags."""
    kind: wire.JobKind = options.kind
    parameters = given_parameters(options, kind)
    if options.fit:
        if "scale" in parameters:
            raise WireError("invalid-parameter", "--fit is given together with --scale; give one of them")
        parameters["scale"] = kind.parameter("scale").automatic
    if options.size is not None:
        if {"width", "height"} & set(parameters):
            raise WireError("invalid-parameter", "--size is given together with --width or --height; one is enough")
        parameters |= {"width": options.size[0], "height": options.size[1]}
    job = assemble({"kind": kind.name, "parameters": parameters}, given_pictures(options, kind))
    return run_job(job, options.out, options.data_dir)


def given_parameters(options: argparse.Namespace, kind: wire.JobKind) -> dict[str, Any]:
    """The parameters among the flags of a job kind."""
    given = {p.name: getattr(options, p.name) for p in kind.parameters}
    return {name: value for name, value in given.items() if value is not None}


def given_pictures(options: argparse.Namespace, kind: wire.JobKind) -> dict[str, tuple[str, bytes]]:
    """The pictures and maps among the arguments of a job kind: file name and bytes by input. Raises: WireError."""
    paths: dict[str, Path] = {p.name: getattr(options, p.name) for p in kind.pictures if getattr(options, p.name)}
    for name, path in options.maps:
        if wire.map_input(name) in paths:
            raise WireError("invalid-parameter", f"--map {name}= is given twice; give each map once")
        paths[wire.map_input(name)] = path
    return {name: (path.name, read_file(path, f"the picture {name}")) for name, path in paths.items()}


def run_file(options: argparse.Namespace) -> int:
    """Runs a job file. A result is never overwritten by running it again in its own folder."""
    job = load(options.job, BlobStore(options.data_dir / "blobs"))
    out: Path = options.out / f"{options.job.stem}.png"
    if job.request.kind in FILE_NAMES:
        out = out.with_suffix("")
    elif out.exists() and out.samefile(options.job):
        out = options.out / f"{options.job.stem}-again.png"
    options.out.mkdir(parents=True, exist_ok=True)
    return run_job(job, out, options.data_dir)


def run_job(job: JobFile, out: Path, data_dir: Path) -> int:
    """Runs a job in this process and writes its pictures: the result as `out`, its maps beside it."""
    _check_outputs(out, job)
    store = BlobStore(data_dir / "blobs")
    started = time.monotonic()
    outcome = _compute(job, data_dir)
    in_folder = job.request.kind in FILE_NAMES
    for name, data in outcome.pictures.items():
        path = _output_path(out, name, job.request.kind)
        if in_folder and outcome.origins.get(wire.map_name(name) or "") == "given":
            continue
        _write(path, data, store)
        print(path)
    with suppress(OSError, WireError):  # the inputs are kept for `run`, which is not worth failing for
        for data in job.pictures.values():
            store.put(data)
    width, height = size_of(out.name, outcome.pictures["image"])
    print(f"  {width}x{height} in {time.monotonic() - started:.1f} s")
    _print_metrics(outcome.metrics, outcome.notes)
    if outcome.origins:
        print("  maps: " + ", ".join(f"{name} {origin}" for name, origin in outcome.origins.items()))
    return DONE


def _output_path(out: Path, picture: str, kind: str) -> Path:
    """The file of an output: `o.png` for the image, `o-NAME.png` for a map or another picture, or see FILE_NAMES."""
    if kind in FILE_NAMES:
        return out / FILE_NAMES[kind].get(picture, f"{wire.map_name(picture) or picture}.png")
    return out if picture == "image" else out.with_name(f"{out.stem}-{wire.map_name(picture) or picture}.png")


def _check_outputs(out: Path, job: JobFile) -> None:
    """Raises WireError, before any work is done, if a result could not be written or would overwrite an input."""
    kind, folder = job.request.kind, out.parent
    pictures = {"image", *(name for name in job.request.inputs if wire.map_name(name))}
    if kind in FILE_NAMES:
        folder, pictures = out, set(FILE_NAMES[kind])
        with suppress(OSError):
            folder.mkdir(exist_ok=True)
    elif out.suffix.lower() != ".png":
        raise WireError("invalid-parameter", f"--out is {out}; results are written as .png")
    if not folder.is_dir():
        missing = folder.parent if folder is out else folder
        raise WireError("invalid-parameter", f"--out is {out}, but there is no folder {missing}")
    try:
        for path in sorted(_output_path(out, name, kind) for name in pictures):
            if path.exists() and path.read_bytes() in job.pictures.values():
                raise WireError("invalid-parameter", f"--out is {out}, but {path} is an input and would be overwritten")
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise WireError("invalid-parameter", f"--out is {out}, which cannot be written: {error.strerror}") from error


def _write(path: Path, data: bytes, store: BlobStore) -> None:
    """Writes a result; one that cannot be written is kept in the store, and the error names it."""
    try:
        with atomic_writer(path, mode=0o666, durable=True) as file:
            file.write(data)
    except OSError as error:
        kept = ""
        with suppress(OSError, WireError):
            kept = f"; the picture is kept as {store.path(store.put(data))}"
        raise OSError(f"{path} cannot be written: {error.strerror}{kept}") from error


def _compute(job: JobFile, data_dir: Path) -> Outcome:
    """Runs a job with a progress bar on a terminal, and without one in a pipe."""
    from tqdm import tqdm

    prepare_torch()
    from ad_service.worker.runner import Runner

    layout = "{desc:<32.32} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with tqdm(total=1.0, disable=not sys.stderr.isatty(), bar_format=layout, leave=False) as bar:

        def show(step: Step) -> None:
            bar.n = step.fraction
            bar.set_description_str(step.message)

        return run_steps(Runner(data_dir, allow_paths=True).run(job.request, job.read, job.files), show)


def _print_metrics(metrics: Mapping[str, float], notes: Sequence[str]) -> None:
    for name, value in metrics.items():
        print(f"  {name.replace('_', ' ')}: {value:.4g}")
    for note in notes:
        print(f"  note: {note}")
