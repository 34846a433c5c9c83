"""The command line: one module a command.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import io
import shlex
import sys
from collections.abc import Callable, Sequence

from ad_service import __version__
from ad_service.cli import bench, doctor, edit, jobs, models, record, serve, tokens
from ad_service.cli.arguments import BAD_INPUT, FAILED, INTERRUPTED, Parser, parse_folder
from ad_service.storage.settings import default_data_dir
from blender_addon.wire import WireError

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
"""Errors whose remedy is for the add-on; here their details say what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code; an error is one line on stderr."""
    options = make_parser().parse_args(arguments)
    options.line = shlex.join(["ad-service", *(sys.argv[1:] if arguments is None else arguments)])
    command: Callable[[argparse.Namespace], int] = options.command
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal may lack characters of a file's name
    try:
        return command(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except WireError as error:
        text = error.detail if error.code in REMEDIES_OF_THE_ADDON else error.sentence
        print(f"ad-service: {text}", file=sys.stderr)
        return BAD_INPUT if error.code in BAD_INPUT_ERRORS else FAILED
    except OSError as error:
        print(f"ad-service: {f'{error.filename}: {error.strerror}' if error.filename else error}", file=sys.stderr)
        return FAILED


def make_parser() -> Parser:
    common = Parser(add_help=False)
    common.add_argument(
        "--data-dir",
        type=parse_folder,
        default=default_data_dir(),
        metavar="DIR",
        help="folder of models, pictures and jobs (default: %(default)s)",
    )
    parser = Parser(prog="ad-service", description="Tileable textures from a swatch, by attention distillation.")
    parser.add_argument("--version", action="version", version=f"ad-service {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for module in (serve, tokens, jobs, edit, record, models, doctor, bench):
        module.add_commands(commands, common)
    return parser
