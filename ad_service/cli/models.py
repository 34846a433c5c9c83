"""`ad-service models`: list, download and check models."""

from __future__ import annotations

import argparse

from ad_service.cli.arguments import DONE, Commands, Parser


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


def list_models(options: argparse.Namespace) -> int:
    from ad_service.storage import models

    for model in models.available(options.data_dir):
        print(f"{model.name:<24} {model.family:<8} {model.title} ({model.license})")
    for entry in models.unusable(options.data_dir):
        print(f"{entry.name:<24} cannot be used: {entry.reason}")
    return DONE


def fetch(options: argparse.Namespace) -> int:
    from ad_service.storage import models

    model = models.fetch(options.name, options.data_dir)
    print(f"{model.name}: {model.path}")
    return DONE


def check(options: argparse.Namespace) -> int:
    from ad_service.storage import models

    model = models.find(options.name, options.data_dir, allow_paths=True)
    models.check(model, values=True)
    print(f"{model.name}: complete, {model.family}, {model.path}")
    return DONE
