"""The command `edit`: changes a part of a picture and leaves the rest as it is."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ad_service.cli.arguments import Commands, Parser
from ad_service.cli.job_files import JobFile, assemble, load
from ad_service.cli.jobs import add_kind, given_parameters, given_pictures, run_job
from ad_service.storage.blobs import BlobStore
from blender_addon import wire
from blender_addon.wire import WireError

NAMES = {wire.MAKE_TILEABLE.name: "tileable"}
"""Names of commands that are not those of their job kinds."""

OF_EARLIER_JOB = {"swatch": "swatch", "regions": "regions", "earlier_layout": "layout"}
"""For each picture of a relayout that may be left out: the input of the picture's own job that it then is."""


def add_commands(commands: Commands, common: Parser) -> None:
    help = "change a part of a picture and its maps: make it tileable, repaint, extend, change its layout"
    group = commands.add_parser("edit", help=help, description=help)
    edits = group.add_subparsers(required=True, metavar="EDIT", parser_class=Parser)
    for kind in wire.EDIT_KINDS.values():
        parser = edits.add_parser(
            NAMES.get(kind.name, kind.name), parents=[common], help=kind.help, description=kind.help
        )
        if kind is not wire.RELAYOUT:
            add_kind(parser, kind)
            continue
        optional = tuple(replace(p, required=p.name in ("picture", "layout")) for p in kind.pictures)
        add_kind(parser, replace(kind, pictures=optional))
        parser.set_defaults(command=run_relayout)


def run_relayout(options: argparse.Namespace) -> int:
    """Runs a relayout; what is not given is taken from the job in the picture's PNG."""
    kind = wire.RELAYOUT
    found = given_pictures(options, kind)
    missing = [name for name in OF_EARLIER_JOB if name not in found]
    parameters: dict[str, object] = {}
    if missing:
        earlier = _earlier_job(options.picture, missing, options.data_dir)
        known = {p.name for p in kind.parameters}
        parameters = {name: value for name, value in earlier.request.parameters.items() if name in known}
        for name in missing:
            source = OF_EARLIER_JOB[name]
            if source not in earlier.request.inputs:
                raise WireError(
                    "invalid-request",
                    f"{options.picture} was made without a {source}; give --{name.replace('_', '-')}",
                )
            sha = earlier.request.inputs[source]
            found[name] = (earlier.files.get(source, ""), earlier.read(sha))
    job = assemble({"kind": kind.name, "parameters": {**parameters, **given_parameters(options, kind)}}, found)
    return run_job(job, options.out, options.data_dir)


def _earlier_job(picture: Path, missing: list[str], data_dir: Path) -> JobFile:
    """The job in a result's PNG. Raises WireError that names what to give if there is none."""
    try:
        return load(picture, BlobStore(data_dir / "blobs"))
    except WireError as error:
        flags = ", ".join("--" + name.replace("_", "-") for name in missing)
        raise WireError(error.code, f"{error.detail}; or give {flags}") from None
