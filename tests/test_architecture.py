"""A folder is one process and one set of dependencies: what each may import, read from the code's own imports."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

HEAVY = {"torch", "diffusers", "transformers", "tokenizers", "einops"}
WEB = {"fastapi", "starlette", "uvicorn", "pydantic"}

MAY_IMPORT: dict[str, set[str]] = {
    "ad_service/core": {*HEAVY, "safetensors", "maxflow", "numpy"},
    "ad_service/storage": {
        "ad_service.core.backbone",
        "wire",
        "platformdirs",
        "filelock",
        "huggingface_hub",
    },
    "ad_service/worker": {"ad_service.core", "ad_service.storage", "wire", "torch", "numpy", "PIL", "safetensors"},
    "ad_service/service": {"ad_service.storage", "ad_service.worker.protocol", "wire", *WEB},
    "ad_service/bench": {"ad_service.core", "ad_service.storage", "ad_service.worker", "wire", "numpy", *HEAVY},
    "ad_service/cli": {
        *(f"ad_service.{n}" for n in ("storage", "worker", "service", "bench", "core.steps")),
        "wire",
        "*",
    },
    "ad_service/maps": {"ad_service.core", "ad_service.pocket.training", "numpy", "PIL", "safetensors", *HEAVY},
    "ad_service/pocket": {"ad_service.core", "numpy", "PIL", "safetensors", *HEAVY},
    "blender_addon/wire": set(),
    "blender_addon/link": {"wire", "requests"},
    "blender_addon/scene": {
        *("wire", "blender_addon.link", "blender_addon.translations", "numpy"),
        *("bpy", "bmesh", "bpy_extras", "gpu", "gpu_extras", "mathutils"),
    },
    "blender_addon/ui": {
        *("wire", "blender_addon.link", "blender_addon.scene", "blender_addon.translations"),
        *("bpy", "blf", "bl_operators", "gpu", "gpu_extras", "numpy", "rna_keymap_ui"),
    },
    "blender_addon/translations": set(),
    "blender_addon/presets": {"bpy"},
    "blender_addon/examples": {"blender_addon", "bpy", "bpy_extras", "mathutils", "numpy", "addon_utils"},
}
"""For each folder, beside itself and the standard library: other folders and packages. `wire` is the contract."""

WITHOUT_TORCH = ("ad_service/storage", "ad_service/service", "ad_service/cli")
"""Folders that never load torch when they are imported (a command loads it when it runs a job)."""

FILES = [file for folder in MAY_IMPORT for file in sorted((ROOT / folder).rglob("*.py"))]


def imports(file: Path, *, deferred: bool = True) -> set[str]:
    """Full names that a file imports; without `deferred`, only those imported when the file is."""
    package = list(file.relative_to(ROOT).parent.parts)
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if _is_for_types(node) or (not deferred and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
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


def folder_of(file: Path) -> str:
    return "/".join(file.relative_to(ROOT).parts[:2])


def is_within(name: str, allowed: str) -> bool:
    return name == allowed or name.startswith(f"{allowed}.")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_folder_imports_what_its_row_says(file: Path) -> None:
    folder = folder_of(file)
    rows = {"blender_addon.wire" if row == "wire" else row for row in MAY_IMPORT[folder]} | {folder.replace("/", ".")}
    ours = {name for name in imports(file) if name.split(".")[0] in ("ad_service", "blender_addon")}
    others = {name.split(".")[0] for name in imports(file) - ours} - set(sys.stdlib_module_names)
    shared = {"ad_service.__version__", "blender_addon.__package__"}
    shared |= {f"ad_service.{folder}.WEIGHTS" for folder in ("pocket", "maps")}
    assert {n for n in ours - shared if not any(is_within(n, row) or n == f"{row}.*" for row in rows)} == set()
    assert "*" in rows or others <= rows


@pytest.mark.parametrize("folder", WITHOUT_TORCH)
def test_torch_stays_out_where_it_is_not_needed(folder: str) -> None:
    for file in (ROOT / folder).rglob("*.py"):
        names = imports(file, deferred=False)
        assert not {name.split(".")[0] for name in names} & HEAVY
        assert not [n for n in names if n.startswith(("ad_service.worker.runner", "ad_service.bench"))]


def test_every_folder_has_a_row() -> None:
    folders = {
        folder_of(file)
        for package in ("ad_service", "blender_addon")
        for file in (ROOT / package).rglob("*.py")
        if len(file.relative_to(ROOT).parts) > 2
    }
    assert folders == set(MAY_IMPORT)


def test_no_file_of_a_folder_imports_one_that_imports_it() -> None:
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in FILES}
    imported = {name: imports(file, deferred=False) for name, file in modules.items() if file.stem != "__init__"}
    rest = {
        name: {module for module in modules if module != name and any(is_within(i, module) for i in found)}
        for name, found in imported.items()
    }
    while rest:
        free = [name for name, needs in rest.items() if not needs & set(rest)]
        assert free, f"these import each other: {sorted(rest)}"
        rest = {name: needs for name, needs in rest.items() if name not in free}
