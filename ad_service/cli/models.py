"""`ad-service models`: list, download and check models."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from ad_service.cli.arguments import DONE, FAILED, Commands, Parser
from blender_addon.wire import WireError


def add_commands(commands: Commands, common: Parser) -> None:
    parser = commands.add_parser("models", help="list, download and check models")
    verbs = parser.add_subparsers(required=True, metavar="VERB", parser_class=Parser)
    verbs.add_parser("list", parents=[common], help="list the values of --model").set_defaults(command=list_models)
    for verb, function, text in (
        ("fetch", fetch, "download a model into the data folder"),
        ("check", check, "read all of a model's files and report damage"),
    ):
        one = verbs.add_parser(verb, parents=[common], help=text)
        one.add_argument("name", metavar="NAME")
        one.set_defaults(command=function)
        if verb == "fetch":
            one.add_argument("--json", action="store_true", help="report progress and errors as lines of JSON")


def list_models(options: argparse.Namespace) -> int:
    from ad_service.storage import models

    for model in models.available(options.data_dir):
        print(f"{model.name:<24} {model.family:<8} {model.title} ({model.license})")
    for entry in models.unusable(options.data_dir):
        print(f"{entry.name:<24} cannot be used: {entry.reason}")
    return DONE


def fetch(options: argparse.Namespace) -> int:
    """Downloads a model. With --json, a line has either `received` and `total`, or at the end `model` or `problem`."""
    from ad_service.storage import models

    if not options.json:
        model = models.fetch(options.name, options.data_dir, on_progress=_show if sys.stderr.isatty() else None)
        print(f"{model.name}: {model.path}")
        return DONE
    try:
        model = models.fetch(
            options.name, options.data_dir, on_progress=lambda received, total: _send(received=received, total=total)
        )
    except WireError as error:
        _send(problem=error.problem())
        return FAILED
    _send(model=model.name)
    return DONE


def _show(received: int, total: int) -> None:
    end = "\n" if received == total else ""
    print(f"\r{received / 1e9:.2f} of {total / 1e9:.2f} GB", end=end, file=sys.stderr, flush=True)


def _send(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def check(options: argparse.Namespace) -> int:
    from ad_service.storage import models

    model = models.find(options.name, options.data_dir, allow_paths=True)
    models.check(model, values=True)
    print(f"{model.name}: complete, {model.family}, {model.path}")
    return DONE
