"""`ad-service tokens`: who may use the service besides its owner."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ad_service.cli.arguments import DONE, Commands, Parser, parse_count, parse_gigabytes
from ad_service.storage.tokens import ArtistLimits, Token, Tokens


def add_commands(commands: Commands, common: Parser) -> None:
    parser = commands.add_parser("tokens", help="make, list and revoke the tokens of artists")
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=Parser)
    adding = verbs.add_parser("add", parents=[common], help="make a token and print it, once")
    adding.add_argument("name", metavar="NAME")
    adding.add_argument("--metrics", action="store_true", help="a token that can read /metrics and nothing else")
    adding.add_argument("--max-queue", type=parse_count, metavar="N", help="jobs of this artist that may wait")
    adding.add_argument("--max-pixels", type=parse_megapixels, metavar="MP", help="megapixels of one result")
    adding.add_argument(
        "--max-disk", type=parse_gigabytes, metavar="GB", help="disk for the pictures of this artist's jobs"
    )
    adding.set_defaults(command=add)
    listing = verbs.add_parser("list", parents=[common], help="list names and limits; tokens cannot be shown again")
    listing.set_defaults(command=show)
    revoking = verbs.add_parser("revoke", parents=[common], help="revoke a token; a running service refuses it at once")
    revoking.add_argument("name", metavar="NAME")
    revoking.set_defaults(command=revoke)


def parse_megapixels(text: str) -> int:
    """Pixels of a number of megapixels, which may be a fraction."""
    try:
        megapixels = float(text)
    except ValueError:
        megapixels = -1.0
    if not 0 < megapixels < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of megapixels such as 16")
    return int(megapixels * 1e6)


def add(options: argparse.Namespace) -> int:
    data_dir: Path = options.data_dir
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    limits = ArtistLimits(options.max_queue, options.max_pixels, options.max_disk)
    print(Tokens(data_dir).add(options.name, "metrics" if options.metrics else "artist", limits))
    return DONE


def show(options: argparse.Namespace) -> int:
    for token in Tokens(options.data_dir).all():
        made = time.strftime("%Y-%m-%d", time.localtime(token.created))
        print(f"{token.caller.name:<20}  {made}  {_rights(token)}")
    return DONE


def revoke(options: argparse.Namespace) -> int:
    Tokens(options.data_dir).revoke(options.name)
    print(f"{options.name}: revoked")
    return DONE


def _rights(token: Token) -> str:
    """What a token can do, in words."""
    if token.caller.role == "metrics":
        return "metrics only"
    limits = token.caller.limits
    words = [
        f"{limits.queue} waiting jobs" if limits.queue is not None else "",
        f"{limits.pixels / 1e6:g} megapixels" if limits.pixels is not None else "",
        f"{limits.disk / 1e9:g} GB" if limits.disk is not None else "",
    ]
    return ", ".join(filter(None, words)) or "no limits"
