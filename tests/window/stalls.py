"""Measures how long Blender's interface stands still: `python -m tests.window.stalls FILE`.

Writes the measurements as JSON and prints them as a table. Stalls are longer while other programs use the processor.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support.live_service import launch
from tests.window import launcher

SIDES = (2048, 4096)
NOT_ACTIONS = {"version", "started", "passed", "idle"}


def measure(command: list[str]) -> dict[str, Any]:
    """Measures every action in one Blender, at each size."""
    found: dict[str, Any] = {"cores": os.cpu_count(), "actions": {}}
    with tempfile.TemporaryDirectory() as folder:
        service = launch(Path(folder) / "data", "", "--engine", "tests.addon.engines:brisk")
        try:
            for side in SIDES:
                blender = launcher.Blender(command, Path(folder) / str(side))
                values = blender.run("stalls.every_action", service.data_dir, side=side)
                found["blender"] = values["version"]
                idle = values["idle"]["gap"]
                for name, longest in values.items():
                    if name not in NOT_ACTIONS:
                        stall = {"gap": round(max(0.0, longest["gap"] - idle), 3), "own": round(longest["own"], 3)}
                        found["actions"].setdefault(name, {})[str(side)] = stall
        finally:
            service.stop(signal.SIGKILL)
    return found


def table(found: list[dict[str, Any]]) -> str:
    """A Markdown table of the longest stalls, with a row for each action and each Blender."""
    titles = [f"{side}: {what}" for side in SIDES for what in ("stall", "of it the add-on")]
    lines = ["| | " + " | ".join(["Blender", *titles]) + " |", "|---" * (len(titles) + 2) + "|"]
    for run in found:
        for name, sides in run["actions"].items():
            cells = [f"{sides[str(side)][what]:.2f} s" for side in SIDES for what in ("gap", "own")]
            lines.append("| " + " | ".join([name, run["blender"], *cells]) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.window.stalls", description=__doc__)
    parser.add_argument("file", type=Path, help="JSON file to write")
    given = parser.parse_args()
    commands = launcher.commands()
    if not commands:
        print(launcher.MISSING, file=sys.stderr)
        return 1
    found = [measure(command) for command in commands]
    given.file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
