"""install.py: its decisions, its environments and its packages, without downloading anything."""

from __future__ import annotations

import ast
import json
import os
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import install
from ad_service import __version__
from blender_addon.link import client

ROOT = Path(install.__file__).resolve().parent


def commands() -> set[str]:
    return set(re.findall(r"^    (\w+) ", install.parser().format_help().split("commands:")[1], re.MULTILINE))


def script(path: Path, text: str) -> Path:
    """A shell script that prints a text."""
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


# -- the file itself ------------------------------------------------------------------------------------------------


def test_it_imports_only_the_standard_library() -> None:
    tree = ast.parse(Path(install.__file__).read_text())
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


def test_its_docstring_names_its_commands() -> None:
    named = set(re.findall(r"^    python install\.py (\w+)", install.__doc__ or "", re.MULTILINE))
    assert named == commands() - {"packages"}


def test_an_unknown_option_is_rejected_in_one_line() -> None:
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


def test_the_pin_of_torch_leaves_the_build_to_pip() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", pins("service.txt")["torch"])


def test_both_pin_files_have_the_same_versions_of_shared_packages() -> None:
    for name in ("pip", "setuptools", "pytest", "requests"):
        assert pins("bpy.txt")[name] == pins("service.txt")[name]


# -- environments ---------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that `run_captured` is called with; they are not run."""
    made: list[str] = []

    def record(command: list[str | Path]) -> str:
        made.append(" ".join(map(str, command)))
        return ""

    monkeypatch.setattr(install, "run_captured", record)
    return made


@pytest.fixture
def environment(tmp_path: Path) -> install.Environment:
    """An environment with an empty file as its interpreter."""
    made = install.Environment(tmp_path / "venv", install.PINS / "service.txt")
    made.tool("python").parent.mkdir(parents=True)
    made.tool("python").touch()
    return made


def test_an_installed_layer_is_not_installed_again(environment: install.Environment, calls: list[str]) -> None:
    environment.add("service", "The service", ["numpy"], "1 MB")
    first = len(calls)
    environment.add("service", "The service", ["numpy"], "1 MB")
    assert first == 2
    assert len(calls) == first


def test_a_changed_requirement_is_installed(environment: install.Environment, calls: list[str]) -> None:
    environment.add("service", "The service", ["numpy"], "1 MB")
    environment.add("service", "The service", ["numpy", "pillow"], "1 MB")
    assert calls[-1].endswith("numpy pillow")
    assert "--constraint" in calls[-1]


def test_a_failed_installation_is_repeated(environment: install.Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def fails(_command: list[str]) -> str:
        tries.append(1)
        raise install.SetupError("no network")

    monkeypatch.setattr(install, "run_captured", fails)
    for _ in range(2):
        with pytest.raises(install.SetupError):
            environment.add("service", "The service", ["numpy"], "1 MB")
    assert len(tries) == 2


def test_an_existing_environment_is_kept(environment: install.Environment, calls: list[str]) -> None:
    environment.create("python3")
    assert calls == []


def test_an_environment_that_was_moved_is_created_again(environment: install.Environment, calls: list[str]) -> None:
    (environment.folder / ".home").write_text("/somewhere/else")
    environment.create("python3")
    assert "venv --clear" in calls[0]


@pytest.mark.parametrize("target", ["with an interpreter", "moved", "empty", "missing"])
def test_a_link_to_an_environment_is_rejected_and_its_target_stays(
    environment: install.Environment, target: str, tmp_path: Path, calls: list[str]
) -> None:
    if target == "moved":
        (environment.folder / ".home").write_text("/somewhere/else")
    folder = environment.folder if target in ("with an interpreter", "moved") else tmp_path / target
    if target == "empty":
        folder.mkdir()
    before = sorted(folder.rglob("*"))
    link = tmp_path / "link"
    try:
        link.symlink_to(folder, target_is_directory=True)
    except OSError:
        pytest.skip("this system does not allow symbolic links")
    with pytest.raises(install.SetupError, match=r"link is a link to .*Nothing was changed"):
        install.Environment(link, environment.pins).create("python3")
    assert calls == []
    assert sorted(folder.rglob("*")) == before
    assert folder.exists() == (target != "missing")


def test_a_python_version_is_found_or_named() -> None:
    version = sys.version_info[:2]
    assert install.find_python((version[0], version[1])) == sys.executable
    with pytest.raises(install.SetupError, match=r"Python 3\.2 was not found"):
        install.find_python((3, 2))


def test_a_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "_loads", lambda library: library != "libXi.so.6")
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(install.SetupError, match=r"apt-get install libxi6\. .*libXi\.so\.6"):
        install.bpy_environment("5.0")


def test_a_failed_command_reports_its_last_lines() -> None:
    with pytest.raises(install.SetupError, match="the reason\n\nThis command failed with status 3"):
        install.run_captured([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])


# -- Blender --------------------------------------------------------------------------------------------------------

unix_only = pytest.mark.skipif(os.name == "nt", reason="the fake Blender is a shell script")


@unix_only
def test_a_new_enough_blender_is_accepted(tmp_path: Path) -> None:
    assert install.check_blender(script(tmp_path / "blender", "Blender 5.1.2\nbuild date")) == "Blender 5.1.2"


@unix_only
@pytest.mark.parametrize(
    ("printed", "sentence"),
    [("Blender 3.6.2", "too old: extensions need Blender 4.2"), ("Inkscape 1.3", "does not look like Blender")],
)
def test_another_program_is_rejected(tmp_path: Path, printed: str, sentence: str) -> None:
    with pytest.raises(install.SetupError, match=sentence):
        install.check_blender(script(tmp_path / "blender", printed))


def test_a_path_without_a_program_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(install.SetupError, match="cannot be started"):
        install.check_blender(tmp_path / "nothing")


@unix_only
def test_the_add_on_finds_the_service_after_its_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


# -- versions and packages ------------------------------------------------------------------------------------------


def test_the_manifest_and_the_changelog_have_the_version_of_the_project() -> None:
    manifest = re.search(r'^version = "(.+)"', (install.ADDON / "blender_manifest.toml").read_text(), re.MULTILINE)
    released = re.findall(r"^## \[(\d.*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert manifest and manifest[1] == install.version() == __version__ == released[0]
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()


def test_a_manifest_with_another_version_is_not_packaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    (tmp_path / "blender_manifest.toml").write_text('version = "0.0.9"\n')
    monkeypatch.setattr(install, "ADDON", tmp_path)
    with pytest.raises(install.SetupError, match=f"has version 0.0.9; change it to {re.escape(__version__)}"):
        install.package(tmp_path / "dist")
    assert calls == []


def test_the_package_command_writes_the_wheel_and_the_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = install.Environment(Path(sys.prefix), install.PINS / "service.txt")
    monkeypatch.setattr(install, "service_environment", lambda: service)
    monkeypatch.setattr(install, "bpy_environment", lambda _blender: service)
    monkeypatch.setattr(install, "extension_tool", lambda _bpy: [])
    monkeypatch.setattr(install, "build_wheel", lambda _python, folder: folder / "service.whl")

    def build(_tool: list[str], folder: Path) -> Path:
        (folder / "addon.zip").touch()
        return folder / "addon.zip"

    monkeypatch.setattr(install, "build_extension", build)
    assert install.main(["package", "--out", str(tmp_path / "out")]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"texture_distiller-{__version__}.zip"]


def test_the_wheel_has_the_weights_and_no_training_code(tmp_path: Path) -> None:
    wheel = install.build_wheel(Path(sys.executable), tmp_path)
    names = set(zipfile.ZipFile(wheel).namelist())
    pocket = {name.removeprefix("ad_service/pocket/") for name in names if name.startswith("ad_service/pocket/")}
    folder = ROOT / "ad_service" / "pocket"
    weights = {path.relative_to(folder).as_posix() for path in (folder / "weights").rglob("*.*")}
    assert any(name.endswith(".safetensors") for name in weights)
    assert pocket == {"README.md", *weights, *(path.name for path in folder.glob("*.py"))}
    assert not [name for name in names if "training" in name]
    assert {
        "ad_service/cli/command_line.py",
        "blender_addon/wire/kinds.py",
        "blender_addon/examples/cobbles.png",
    } <= names
    assert not [name for name in names if name.startswith("tests")]


def test_the_workflow_and_the_issue_templates_are_valid_yaml() -> None:
    files = [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]
    documents = {file.name: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}
    assert set(documents) == {"test.yml", "bug.yml", "feature.yml", "config.yml", ".pre-commit-config.yaml"}
    assert documents["test.yml"]["jobs"]["test"]["steps"][-1]["run"] == "python install.py test"
    for name in ("bug.yml", "feature.yml"):
        assert {"name", "description", "body"} <= documents[name].keys()
