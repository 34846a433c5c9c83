"""`ad-service serve`: the service that the Blender add-on uses."""

from __future__ import annotations

import argparse
import math
import os
import ssl
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

from ad_service.cli.arguments import (
    DONE,
    FAILED,
    Commands,
    Parser,
    parse_count,
    parse_gigabytes,
    parse_gpus,
    parse_port,
)
from ad_service.cli.job_files import read_file
from ad_service.storage.settings import Settings
from ad_service.storage.tokens import Tokens
from blender_addon.wire import MAX_QUEUE, WireError

MIN_TOKEN_LENGTH = 16
MIN_TOKEN_BITS = 48.0
"""Entropy of a token by the frequencies of its characters; 16 random hex digits have 54, `passwordpassword` has 44."""


def add_commands(commands: Commands, common: Parser) -> None:
    parser = commands.add_parser("serve", parents=[common], help="run the service that the Blender add-on uses")
    parser.add_argument("--port", type=parse_port, default=0, help="port; 0: any free one (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--token-file",
        type=Path,
        help="file with the owner's token; required if other machines can reach --host, unless artists have tokens",
    )
    parser.add_argument(
        "--storage-limit",
        type=parse_gigabytes,
        metavar="GB",
        help="disk for pictures and results; the oldest are deleted (default: a tenth of what is free, at most 20)",
    )
    parser.add_argument(
        "--gpus",
        type=parse_gpus,
        default=(None,),
        metavar="LIST",
        help="numbers or UUIDs of GPUs, such as 0,1: one worker for each (default: one worker, on the best device)",
    )
    parser.add_argument("--tls-cert", type=Path, metavar="PEM", help="certificate with which the service uses HTTPS")
    parser.add_argument("--tls-key", type=Path, metavar="PEM", help="key, if it is not in the file of --tls-cert")
    parser.add_argument(
        "--max-queue",
        type=parse_count,
        default=MAX_QUEUE,
        metavar="N",
        help="jobs of one artist that may wait (default: %(default)s)",
    )
    parser.add_argument(
        "--open", action="store_true", help="print a link that opens the service's page in a browser, once"
    )
    parser.add_argument("--engine", metavar="MODULE:FUNCTION", help=argparse.SUPPRESS)
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    from ad_service.service.security import is_loopback
    from ad_service.service.serve import serve

    settings = Settings(
        options.data_dir,
        options.host,
        options.port,
        engine=options.engine,
        gpus=options.gpus,
        storage_limit=options.storage_limit,
        max_queue=options.max_queue,
        tls_cert=options.tls_cert,
        tls_key=options.tls_key,
    )
    _check_certificate(options.tls_cert, options.tls_key)
    if options.token_file is not None:
        settings = replace(settings, token=_read_token(options.token_file))
    elif not is_loopback(options.host) and not Tokens(options.data_dir).all():
        raise WireError(
            "invalid-parameter",
            f"other machines can reach --host {options.host}, which requires a --token-file, or tokens of artists "
            "(`ad-service tokens add NAME`)",
        )
    if not is_loopback(options.host) and options.tls_cert is None:
        print(
            f"ad-service: warning: other machines can reach --host {options.host}, and the token and all pictures "
            "cross the network unencrypted; use --tls-cert, or a network that nobody else can read",
            file=sys.stderr,
        )
    try:
        serve(settings, open_page=options.open)
    except RuntimeError as error:
        print(f"ad-service: {error}", file=sys.stderr)
        return FAILED
    return DONE


def _read_token(file: Path) -> str:
    """The token in a file. Raises: WireError if it is easy to guess, or other users can read the file."""
    data = read_file(file, "the token file").strip()
    token = data.decode("ascii", "replace")
    if len(token) < MIN_TOKEN_LENGTH or not (data.isascii() and token.isprintable()) or " " in token:
        raise WireError(
            "invalid-parameter",
            f"the token in {file} must have at least {MIN_TOKEN_LENGTH} printable ASCII characters and no spaces",
        )
    if _entropy(token) < MIN_TOKEN_BITS:
        raise WireError(
            "invalid-parameter",
            f"the token in {file} is easy to guess; write a random one, for example by "
            '`python -c "import secrets; print(secrets.token_urlsafe(32))"`',
        )
    mode = file.stat().st_mode & 0o777
    if os.name != "nt" and mode & 0o077:
        raise WireError(
            "invalid-parameter", f"other users can access the token file {file} (mode {mode:o}); run `chmod 600 {file}`"
        )
    return token


def _entropy(token: str) -> float:
    """Bits of a token whose characters are drawn with the frequencies that they have in it."""
    return -sum(n * math.log2(n / len(token)) for n in Counter(token).values())


def _check_certificate(cert: Path | None, key: Path | None) -> None:
    """Raises: WireError if the files are not a certificate and its key."""
    if cert is None:
        if key is not None:
            raise WireError("invalid-parameter", f"--tls-key is {key}, but there is no --tls-cert")
        return
    read_file(cert, "--tls-cert")
    if key is not None:
        read_file(key, "--tls-key")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (ssl.SSLError, OSError) as error:
        raise WireError(
            "invalid-parameter", f"--tls-cert {cert} is not a PEM certificate with its key: {error}"
        ) from error
