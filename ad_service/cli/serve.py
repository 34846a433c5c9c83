"""`ad-service serve`: the service that the Blender add-on uses."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from ad_service.cli.arguments import DONE, FAILED, Commands, Parser, parse_port
from ad_service.cli.job_files import read_file
from ad_service.storage.settings import Settings
from blender_addon.wire import WireError

MIN_TOKEN_LENGTH = 16


def add_commands(commands: Commands, common: Parser) -> None:
    parser = commands.add_parser("serve", parents=[common], help="run the service that the Blender add-on uses")
    parser.add_argument("--port", type=parse_port, default=0, help="port; 0: any free one (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--token-file", type=Path, help="file with the access token; required if other machines can reach --host"
    )
    parser.add_argument("--engine", metavar="MODULE:FUNCTION", help=argparse.SUPPRESS)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    from ad_service.service.security import is_loopback
    from ad_service.service.serve import serve

    settings = Settings(options.data_dir, options.host, options.port, engine=options.engine)
    if options.token_file is not None:
        settings = replace(settings, token=_read_token(options.token_file))
    elif not is_loopback(options.host):
        raise WireError(
            "invalid-parameter", f"other machines can reach --host {options.host}, which requires a --token-file"
        )
    try:
        serve(settings)
    except RuntimeError as error:
        print(f"ad-service: {error}", file=sys.stderr)
        return FAILED
    return DONE


def _read_token(file: Path) -> str:
    token = read_file(file, "the token file").decode("ascii", "replace").strip()
    if len(token) < MIN_TOKEN_LENGTH or not token.isprintable() or " " in token:
        raise WireError(
            "invalid-parameter",
            f"the token in {file} must have at least {MIN_TOKEN_LENGTH} printable characters and no spaces",
        )
    return token
