"""Takes the pictures of the add-on's states: `python -m tests.window.screenshots FOLDER [NAME ...]`.

Uses the first Blender with a window (see launcher.py), whose screen has to be an X screen, and the real engine.
"""

from __future__ import annotations

import argparse
import ast
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.support.live_service import launch
from tests.window import launcher

STATES = Path(__file__).parent / "steps" / "states.py"
LIMIT_SECONDS = 900.0
"""How long a state may take: the real engine runs, up to four times."""


def names() -> list[str]:
    """The names of the states, read from their source, since it can be imported in Blender only."""
    tree = ast.parse(STATES.read_text(encoding="utf-8"))
    (states,) = (n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "STATES")
    assert isinstance(states, ast.Dict)
    return [ast.literal_eval(key) for key in states.keys if key is not None]


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.window.screenshots", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of {', '.join(names())}; default: all")
    given = parser.parse_args()
    commands = launcher.commands()
    if not commands:
        print(launcher.MISSING, file=sys.stderr)
        return 1
    given.folder.mkdir(parents=True, exist_ok=True)
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        service = launch(Path(folder) / "data", "")
        try:
            for name in given.names or names():
                blender = launcher.Blender(commands[0], Path(folder) / name, LIMIT_SECONDS)
                try:
                    blender.run("states.take", service.data_dir, name=name)
                    shutil.copy(next(blender.folder.rglob(f"{name}.png")), given.folder)
                    print(f"{name}: {given.folder / name}.png", flush=True)
                except launcher.StepsFailed as error:
                    failed.append(name)
                    print(f"{name}: {error}", file=sys.stderr, flush=True)
        finally:
            service.stop(signal.SIGKILL)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
