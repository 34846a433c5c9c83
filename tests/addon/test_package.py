"""The extension as a zip: it is valid, installs, registers and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import bpy
import pytest

from tests.addon.conftest import ROOT

EXTENSION_TOOL = Path(bpy.utils.system_resource("SCRIPTS")) / "addons_core" / "bl_pkg" / "cli" / "blender_ext.py"

INSTALL = """
import sys, threading, bpy
sys.modules.pop("blender_addon", None)
import addon_utils
addon_utils.enable("bl_pkg")
bpy.ops.extensions.package_install_files(filepath=sys.argv[1], repo="user_default", enable_on_install=True)
name = "bl_ext.user_default.texture_distiller"
assert name in bpy.context.preferences.addons, list(bpy.context.preferences.addons.keys())
assert bpy.context.preferences.addons[name].preferences.start_automatically
assert bpy.ops.distill.region_add(name="Moss") == {"FINISHED"}
import importlib
session = importlib.import_module(name + ".scene.session")
session.pump()
for _ in range(2):
    addon_utils.disable(name, default_set=True)
    assert not hasattr(bpy.types.Scene, "distill") and not hasattr(bpy.types, "DISTILL_OT_run")
    assert not session._on_load in bpy.app.handlers.load_post and not session._on_save in bpy.app.handlers.save_pre
    addon_utils.enable(name, default_set=True)
    assert hasattr(bpy.types.Scene, "distill")
assert [m for m in sys.modules if m.partition(".")[0] in ("torch", "ad_service", "blender_addon")] == []
print("passed")
"""

ANOTHER_KIND = """
import sys, bpy
sys.path.insert(0, sys.argv[1])
from blender_addon import wire
content = wire.Picture("content", "color", "The picture whose shapes are kept", True)
fewer = tuple(p for p in wire.COMMON if p.name not in ("width", "height", "tile"))
prompt = wire.Parameter("prompt", wire.Text(), "a wall", "What it shows")
another = wire.JobKind("another", "Another", "A later kind", (content, wire.SWATCH), (*fewer, prompt))
wire.TEXTURE_KINDS["another"] = wire.KINDS["another"] = another
import blender_addon
from blender_addon.scene import properties, requests
blender_addon.register()
settings = bpy.context.scene.distill
settings.kind = "another"
assert not bpy.ops.distill.run.poll()
settings.image_content, settings.image_swatch = bpy.data.images.new("a", 64, 32), bpy.data.images.new("b", 32, 32)
assert properties.output_size(settings) == (64, 32) and not properties.takes_layout(settings)
settings.use_layout = True
settings.parameters_another.prompt = "a hedge"
(order,) = requests.drafts(bpy.context.scene)
assert set(order.pictures) == {"content", "swatch"} and order.parameters["prompt"] == "a hedge", order
assert "width" not in order.parameters
blender_addon.unregister()
print("passed")
"""


def extension(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(EXTENSION_TOOL), *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    extension("build", "--source-dir", str(ROOT / "blender_addon"), "--output-dir", str(folder))
    return next(folder.glob("texture_distiller-*.zip"))


def test_the_package_is_valid_and_complete(package: Path) -> None:
    extension("validate", str(package))
    names = zipfile.ZipFile(package).namelist()
    assert {"blender_manifest.toml", "__init__.py", "wire/__init__.py", "ui/panels/run.py"} <= set(names)
    assert {n for n in names if n.startswith("examples/") and not n.endswith("/")} == {
        f"examples/cobbles{part}.png" for part in ("", "_normal", "_roughness", "_height", "_regions", "_layout")
    }
    assert not [n for n in names if "__pycache__" in n or n.endswith((".pyc", ".zip"))]


def in_another_blender(script: str, argument: Path, tmp_path: Path) -> None:
    """Runs a script in another process, with separate preferences."""
    environment = {**os.environ, "BLENDER_USER_RESOURCES": str(tmp_path)}
    command = [sys.executable, "-c", script, str(argument)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path, timeout=120
    )
    assert "passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


def test_the_package_is_installed_enabled_and_disabled(package: Path, tmp_path: Path) -> None:
    in_another_blender(INSTALL, package, tmp_path)


def test_a_new_job_kind_gets_its_properties(tmp_path: Path) -> None:
    in_another_blender(ANOTHER_KIND, ROOT, tmp_path)
