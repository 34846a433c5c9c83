"""The command line: `ad-service serve | run | synthesize | models | doctor`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ad_service.settings import Settings, default_data_dir


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="ad-service")
    commands = parser.add_subparsers(required=True)
    serve = commands.add_parser("serve")
    serve.add_argument("--data-dir", type=Path, default=default_data_dir())
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=0)
    serve.add_argument("--engine", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)

    from ad_service.serve import serve as run

    run(Settings(options.data_dir, options.host, options.port, engine=options.engine))
    return 0


if __name__ == "__main__":
    sys.exit(main())
