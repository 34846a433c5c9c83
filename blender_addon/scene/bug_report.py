"""A report of a defect: versions, log lines, parameters. No pictures, no tokens, no names of files or users."""

from __future__ import annotations

import getpass
import json
import platform
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import bpy

from .. import wire
from ..link import client
from ..wire.runtime import read_runtime
from . import preferences

if TYPE_CHECKING:
    from .session import Session

LOGS = ("service.log", "worker.log", "start.log")
LOG_LINES = 30
"""How many lines of each log a report has, the last ones."""
_NAME = r"""[^\\/:*?"'<>|\n]"""
_PATH = re.compile(
    rf"""(?<![\w:/])(?:~|[A-Za-z]:|\\\\[^\s\\/"'<>]+)?[\\/](?:{_NAME}+[\\/])*({_NAME}*?\.\w{{2,7}}\b|(?:(?!\s){_NAME})*)"""
)
"""A path from its root, with spaces in its folders, and in its last name if that has an ending."""
_SECRET = re.compile(r"(?i)(bearer\s+|token[\"'=:\s]+|hf_)[\w.~+/-]{6,}=*")


def collect(session: Session) -> str:
    """The report as Markdown."""
    address = preferences.service_address()
    status = session.status
    versions = {
        "Blender": bpy.app.version_string,
        "Add-on": _version(),
        "Contract": str(wire.VERSION),
        "System": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Service": f"{status.version} ({'another computer' if address.url else 'this computer'})" if status else "-",
        "Device": status.device if status else "-",
        **(status.packages if status else {}),
    }
    parts = ["## Texture Distiller: bug report", "", *(f"- {name}: {value}" for name, value in versions.items())]
    if session.error is not None:
        parts += ["", "## Error", "", f"{session.error.code}: {session.error.detail}"]
    if jobs := session.of_this_file():
        last = jobs[0]
        parts += ["", "## Last job", "", f"{last.kind}, {last.state}, {last.seconds:.1f} s {last.code} {last.sentence}"]
        parts += ["", "```json", json.dumps(dict(last.parameters), indent=1), "```"]
    if not address.url:
        for name in LOGS:
            parts += ["", f"## {name}", "", "```", *_last_lines(address.folder / name), "```"]
    return redact("\n".join(parts) + "\n", _secrets(address))


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text without secrets, folders and the user's name; of a path, only the name of a program's file is left."""
    for secret in sorted(set(filter(None, secrets)), key=len, reverse=True):
        text = text.replace(secret, "(removed)")
    text = _PATH.sub(_file_name, text)
    return _SECRET.sub("(removed)", text)


def _file_name(path: re.Match[str]) -> str:
    """`.../engine.py` for a file of code, `(path)` for any other, whose name may be the artist's."""
    if not re.search(r"[\\/]", path[0][1:]) and not path[0].startswith(("~", "\\\\")) and ":" not in path[0]:
        return path[0]  # a single slash, as in “5 s/step” or “/v1”
    return f".../{path[1]}" if path[1].endswith((".py", ".log", ".sqlite")) else "(path)"


def _secrets(address: client.ServiceAddress) -> list[str]:
    runtime = read_runtime(address.folder) or {}
    chosen = preferences.get()
    typed = [chosen.token, chosen.hub_token, chosen.url] if chosen else []
    home = str(Path.home())
    names = [getpass.getuser(), Path.home().name]
    return [str(runtime.get("token", "")), *typed, home, str(address.folder), *(n for n in names if len(n) > 3)]


def _last_lines(file: Path) -> list[str]:
    try:
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - 100_000))
            return log.read().decode("utf-8", errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return ["(there is no such log)"]


def _version() -> str:
    manifest = Path(__file__).parents[1] / "blender_manifest.toml"
    found = re.search(r'^version = "(.*)"', manifest.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else "unknown"
