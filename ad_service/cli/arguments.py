"""Exit codes and types of arguments that several commands share."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import NoReturn, TypeAlias

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """Reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {message} (see {self.prog} --help)\n")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What a command adds its parser to. argparse has no public name for it."""


def parse_count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a non-negative integer")
    return int(text)


def parse_port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 0 to 65535")
    return int(text)


def parse_gigabytes(text: str) -> int:
    """Bytes of a number of gigabytes, which may be a fraction."""
    try:
        gigabytes = float(text)
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of gigabytes such as 20")
    return int(gigabytes * 1e9)


def parse_gpus(text: str) -> tuple[str, ...]:
    """The names of different GPUs, which commas separate."""
    gpus = tuple(name.strip() for name in text.split(","))
    if len(set(gpus)) < len(gpus) or not all(re.fullmatch(r"\d+|(GPU|MIG)-[\w-]+", gpu) for gpu in gpus):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of different GPUs such as 0,1")
    return gpus


def parse_size(text: str) -> tuple[int, int]:
    """Width and height; one number stands for both."""
    width, _, height = text.lower().partition("x")
    try:
        return int(width), int(height or width)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 1024x512") from None


def parse_folder(text: str) -> Path:
    return Path(text).expanduser().resolve()
