"""install.py: what it decides, without downloading anything."""

from __future__ import annotations

import ast
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import install
from blender_addon.link import client

ROOT = Path(install.__file__).resolve().parent


def commands() -> set[str]:
    return set(re.findall(r"^    (\w+) ", install.parser().format_help().split("commands:")[1], re.MULTILINE))


def script(path: Path, text: str) -> Path:
    """A program that prints a text."""
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


# -- the file itself ------------------------------------------------------------------------------------------------


def test_it_needs_the_standard_library_alone() -> None:
    tree = ast.parse(Path(install.__file__).read_text())
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_its_docstring_names_its_commands() -> None:
    named = set(re.findall(r"^    python install\.py (\w+)", install.__doc__ or "", re.MULTILINE))
    assert named == commands() - {"packages"}


def test_an_unknown_command_is_refused_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "install.py", "demo", "--sice", "9"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "unknown arguments: --sice 9" in done.stderr


# -- pins -----------------------------------------------------------------------------------------------------------


def pins(file: str) -> dict[str, str]:
    lines = (install.PINS / file).read_text().splitlines()
    rows = [line.split(";")[0].strip().split("==") for line in lines if "==" in line]
    return {name.lower().replace("_", "-"): version for name, version in rows}


def test_every_requirement_of_the_project_is_pinned() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    listed = "".join(re.findall(r"^(?:dependencies|dev) = \[(.*?)\]", text, re.MULTILINE | re.DOTALL))
    names = {re.split(r"[<>=]", quoted)[0] for quoted in re.findall(r'"([^"]+)"', listed)}
    assert len(names) > 15
    assert names <= set(pins("service.txt"))


def test_torch_is_pinned_without_a_build_so_that_pip_may_choose_the_one_for_this_machine() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", pins("service.txt")["torch"])


def test_blenders_environments_share_the_pins_of_pip_and_pytest() -> None:
    for name in ("pip", "setuptools", "pytest", "requests"):
        assert pins("bpy.txt")[name] == pins("service.txt")[name]


# -- environments ---------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `quietly` was asked to run, instead of running it."""
    made: list[str] = []

    def record(command: list[str | Path]) -> str:
        made.append(" ".join(map(str, command)))
        return ""

    monkeypatch.setattr(install, "quietly", record)
    return made


@pytest.fixture
def environment(tmp_path: Path) -> install.Environment:
    """An environment that looks as if it had been made."""
    made = install.Environment(tmp_path / "venv", install.PINS / "service.txt")
    made.tool("python").parent.mkdir(parents=True)
    made.tool("python").touch()
    return made


def test_what_is_installed_already_is_not_installed_again(environment: install.Environment, calls: list[str]) -> None:
    environment.add("service", "The service", ["numpy"], "1 MB")
    first = len(calls)
    environment.add("service", "The service", ["numpy"], "1 MB")
    assert first == 2
    assert len(calls) == first


def test_another_requirement_is_installed(environment: install.Environment, calls: list[str]) -> None:
    environment.add("service", "The service", ["numpy"], "1 MB")
    environment.add("service", "The service", ["numpy", "pillow"], "1 MB")
    assert calls[-1].endswith("numpy pillow")
    assert "--constraint" in calls[-1]


def test_an_installation_that_failed_is_tried_again(
    environment: install.Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def fails(_command: list[str]) -> str:
        tries.append(1)
        raise install.SetupError("no network")

    monkeypatch.setattr(install, "quietly", fails)
    for _ in range(2):
        with pytest.raises(install.SetupError):
            environment.add("service", "The service", ["numpy"], "1 MB")
    assert len(tries) == 2


def test_an_environment_that_is_there_is_kept_and_one_that_was_moved_is_made_anew(
    environment: install.Environment, calls: list[str]
) -> None:
    environment.create("python3")
    assert calls == []
    (environment.folder / ".home").write_text("/somewhere/else")
    environment.create("python3")
    assert "venv --clear" in calls[0]


def test_the_python_that_runs_is_found_and_a_missing_one_is_named() -> None:
    version = sys.version_info[:2]
    assert install.find_python((version[0], version[1])) == sys.executable
    with pytest.raises(install.SetupError, match=r"Python 3\.2 was not found"):
        install.find_python((3, 2))


def test_a_missing_library_is_named_by_the_package_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_loads", lambda library: library != "libXi.so.6")
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(install.SetupError, match=r"apt-get install libxi6\. .*libXi\.so\.6"):
        install.bpy_environment("5.0")


def test_a_failed_command_shows_its_last_lines() -> None:
    with pytest.raises(install.SetupError, match="the reason\n\nThis command failed with status 3"):
        install.quietly([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])


# -- Blender --------------------------------------------------------------------------------------------------------

unix_only = pytest.mark.skipif(os.name == "nt", reason="the fake Blender is a shell script")


@unix_only
def test_a_new_enough_blender_is_taken(tmp_path: Path) -> None:
    assert install.check_blender(script(tmp_path / "blender", "Blender 5.1.2\nbuild date")) == "Blender 5.1.2"


@unix_only
@pytest.mark.parametrize(
    ("printed", "sentence"),
    [("Blender 3.6.2", "too old: extensions need Blender 4.2"), ("Inkscape 1.3", "does not look like Blender")],
)
def test_another_program_is_refused(tmp_path: Path, printed: str, sentence: str) -> None:
    with pytest.raises(install.SetupError, match=sentence):
        install.check_blender(script(tmp_path / "blender", printed))


def test_a_path_that_is_no_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(install.SetupError, match="cannot be started"):
        install.check_blender(tmp_path / "nothing")


@unix_only
def test_the_add_on_is_told_where_the_service_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blender = script(tmp_path / "blender", "Blender 4.2.0")
    service = install.Environment(Path(sys.prefix), install.PINS / "service.txt")
    monkeypatch.setattr(install, "service_environment", lambda: service)
    monkeypatch.setenv("AD_SERVICE_DATA", str(tmp_path / "data"))
    assert install.blender(blender) == 0
    kept = json.loads((tmp_path / "data" / client.LAUNCH_FILE).read_text())
    assert (
        client.executable_of(client.ServiceAddress(str(tmp_path / "data")))
        == kept["executable"]
        == str(service.tool("ad-service"))
    )


# -- versions -------------------------------------------------------------------------------------------------------


def test_the_add_on_and_the_project_have_one_version() -> None:
    project = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    manifest = re.search(r'^version = "(.+)"', (install.ADDON / "blender_manifest.toml").read_text(), re.MULTILINE)
    assert project and manifest
    assert project[1] == manifest[1]
