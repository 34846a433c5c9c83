"""The house's one rule, read from the code's own imports: they run one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SERVICE = sorted((ROOT / "ad_service").glob("*.py"))
CORE = sorted((ROOT / "ad_service" / "core").glob("*.py"))
ADDON = sorted((ROOT / "blender_addon").rglob("*.py"))

TORCH_SIDE = {"bench", "decoders", "meter", "paper", "runner", "untrained"}
"""Files of the service that may import torch and the core when they are imported."""

MAY_IMPORT = {
    "__init__": set(),
    "__main__": {"cli"},
    "settings": {"__init__"},
    "store": set(),
    "engine": set(),
    "decoders": set(),
    "models": {"core"},
    "pictures": set(),
    "security": set(),
    "jobs": {"settings", "store"},
    "openapi": set(),
    "supervisor": {"jobs"},
    "api": {"__init__", "jobs", "models", "openapi", "security", "settings", "store", "supervisor"},
    "serve": {"api", "settings"},
    "jobfile": {"pictures", "store"},
    "runner": {"__init__", "decoders", "engine", "models", "pictures", "core", "store"},
    "worker": {"engine", "runner", "store"},
    "paper": {"core"},
    "untrained": {"core"},
    "bench": {"core", "meter", "models", "paper", "pictures", "report", "runner", "untrained"},
    "meter": {"core", "paper"},
    "report": set(),
    "doctor": {"__init__", "models", "runner", "settings"},
    "cli": {
        *{"__init__", "bench", "doctor", "engine", "jobfile", "models", "pictures"},
        *{"runner", "security", "serve", "settings", "store"},
    },
}
"""What each file of the service may import from its neighbours. All may import the wire."""


def imports(file: Path, *, deferred: bool = True) -> set[str]:
    """Full names of the modules that a file imports; without `deferred`, only those it imports at once."""
    package = list(file.relative_to(ROOT).parent.parts)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for_types = {id(n) for block in ast.walk(tree) if _is_for_types(block) for n in ast.walk(block)}
    inside = {
        id(n)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for n in ast.walk(function)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types or (not deferred and id(node) in inside):
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def roots(file: Path, *, deferred: bool = True) -> set[str]:
    return {name.split(".")[0] for name in imports(file, deferred=deferred)}


def neighbours(file: Path) -> set[str]:
    """The files and folders of the service that a file of it imports; __init__ for the package's own names."""
    known = {path.stem for path in SERVICE} | {"core", "pocket"}
    found = set()
    for name in imports(file):
        parts = name.split(".")
        if parts[0] == "ad_service":
            found.add(parts[1] if len(parts) > 1 and parts[1] in known else "__init__")
    return found


@pytest.mark.parametrize("file", SERVICE, ids=lambda file: file.stem)
def test_the_service_imports_one_way(file: Path) -> None:
    assert file.stem in MAY_IMPORT, f"{file.name} has no row in MAY_IMPORT: say what it may import"
    assert neighbours(file) <= MAY_IMPORT[file.stem]


def test_the_rule_itself_has_no_cycle() -> None:
    rest = {name: set(allowed) & set(MAY_IMPORT) for name, allowed in MAY_IMPORT.items()}
    while rest:
        free = [name for name, needs in rest.items() if not needs]
        assert free, f"these import each other: {sorted(rest)}"
        rest = {name: needs - set(free) for name, needs in rest.items() if name not in free}


def test_every_row_of_the_rule_has_its_file() -> None:
    assert set(MAY_IMPORT) == {file.stem for file in SERVICE}


@pytest.mark.parametrize("file", CORE, ids=lambda file: file.stem)
def test_the_core_knows_no_http_no_files_of_pictures_and_no_wire(file: Path) -> None:
    assert not roots(file) & {"PIL", "fastapi", "starlette", "uvicorn", "requests", "httpx", "blender_addon", "bpy"}
    assert {n for n in imports(file) if n.startswith("ad_service.")} <= {
        n for n in imports(file) if n.startswith("ad_service.core")
    }


def test_the_core_has_no_cycle() -> None:
    stems = {file.stem for file in CORE}
    rest = {
        file.stem: {
            part for name in imports(file) if name.startswith("ad_service.core") for part in name.split(".")[2:3]
        }
        & stems - {file.stem}
        for file in CORE
    }
    while rest:
        free = [name for name, needs in rest.items() if not needs]
        assert free, f"these import each other: {rest}"
        rest = {name: needs - set(free) for name, needs in rest.items() if name not in free}


@pytest.mark.parametrize("file", [f for f in SERVICE if f.stem not in TORCH_SIDE], ids=lambda file: file.stem)
def test_torch_is_not_imported_where_it_is_not_needed(file: Path) -> None:
    at_once = imports(file, deferred=False)
    assert not {"torch", "diffusers", "transformers"} & {name.split(".")[0] for name in at_once}
    heavy = [name for name in at_once if name.startswith(("ad_service.core", "ad_service.runner"))]
    assert [name for name in heavy if "checkpoints" not in name] == []  # reads headers with the standard library


@pytest.mark.parametrize("file", [*SERVICE, *CORE], ids=lambda file: file.stem)
def test_the_service_knows_nothing_of_blender_but_the_wire(file: Path) -> None:
    assert "bpy" not in roots(file)
    assert {n for n in imports(file) if n.startswith("blender_addon")} <= {
        n for n in imports(file) if n == "blender_addon.wire" or n.startswith("blender_addon.wire.")
    }


@pytest.mark.parametrize("file", ADDON, ids=lambda file: file.stem)
def test_the_addon_imports_neither_torch_nor_the_service(file: Path) -> None:
    assert not roots(file) & {"torch", "ad_service", "numpy.typing", "PIL", "fastapi", "pydantic"}


def test_the_wire_is_standard_library_alone() -> None:
    import sys

    assert roots(ROOT / "blender_addon" / "wire.py") <= set(sys.stdlib_module_names)
