"""Results outside the file: as assets in a catalog, and as PNG files with the job that made them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import bpy
import numpy as np
from bpy.types import ID, Image, Material

from ..wire.errors import LocalError
from . import image_io, result_nodes, results

CATALOG = "Texture Distiller"
CATALOG_ID = "7b1a5d52-93a4-4b0c-8d5f-6f1f5f2f1d0e"
"""Every file and library has the catalog under the same id, so that Blender shows it once."""
CATALOG_FILE = "blender_assets.cats.txt"
PREVIEW_SIDE = 256
_HEADER = """# This is an Asset Catalog Definition file for Blender.
#
# Empty lines and lines starting with `#` will be ignored.
# The first non-ignored line should be the version indicator.
# Other lines are of the format "UUID:catalog/path/for/assets:simple catalog name"

VERSION 1

"""


def add_catalog(folder: Path) -> None:
    """Adds the catalog to a folder's catalog file, unless it is there. Other catalogs stay as they are."""
    path = folder / CATALOG_FILE
    text = path.read_text(encoding="utf-8") if path.exists() else _HEADER
    if CATALOG_ID not in text:
        separator = "" if text.endswith("\n") else "\n"
        path.write_text(f"{text}{separator}{CATALOG_ID}:{CATALOG}:{CATALOG}\n", encoding="utf-8")


def mark(image: Image, materials: Iterable[Material]) -> list[ID]:
    """Marks a result and materials that show it as assets of the catalog, with previews; returns the datablocks."""
    marked: list[ID] = [image, *materials]
    for item in marked:
        if item.asset_data is None:
            item.asset_mark()
        item.asset_data.catalog_id = CATALOG_ID
        item.asset_data.description = f"Texture Distiller: {image.name}"
        set_preview(item, image)
        if isinstance(item, Material) and not bpy.app.background:
            item.asset_generate_preview()  # a rendered sphere, in the background
    return marked


def set_preview(item: ID, image: Image) -> None:
    """Sets the preview of a datablock without one to the pixels of an image, at most 256 pixels wide and high."""
    preview = item.preview_ensure()
    if preview.image_size[0]:
        return  # Blender may be drawing it in a thread, and would crash if its memory were replaced
    pixels = image_io.pixels_of(image, "result")[::-1]
    step = max(1, -(-max(pixels.shape[:2]) // PREVIEW_SIDE))
    small = np.ascontiguousarray(pixels[::step, ::step], np.float32) / 255
    preview.image_size = small.shape[1], small.shape[0]
    preview.image_pixels_float.foreach_set(small.ravel())


def libraries() -> dict[str, Path]:
    """The folders of the artist's asset libraries by name."""
    found = bpy.context.preferences.filepaths.asset_libraries
    return {library.name: Path(bpy.path.abspath(library.path)) for library in found if library.path}


def save_to_library(folder: Path, title: str, marked: Iterable[ID]) -> Path:
    """Writes marked datablocks to a .blend file in a library's folder, with the catalog; returns its path.

    Raises LocalError if the folder does not exist or cannot be written.
    """
    path = free_path(folder, title, ".blend")
    try:
        add_catalog(folder)
        bpy.data.libraries.write(str(path), set(marked), fake_user=True, compress=True)
    except (OSError, RuntimeError) as error:
        raise LocalError("invalid-image", f"The asset library {folder} cannot be written: {error}") from error
    return path


def save_pictures(job: str, folder: Path) -> list[Path]:
    """Writes the pictures of a result as PNG files, byte by byte as the service made them, with the job in them.

    A picture that was painted on is packed first, which drops the job. Raises LocalError if a file cannot be written.
    """
    paths = []
    for image in results.images_of(job).values():
        if image.is_dirty:
            image.pack()
        if image.packed_file is None:
            raise LocalError("invalid-image", f"The image “{image.name}” is not packed; pack it, then save it")
        path = free_path(folder, image.name, ".png")
        try:
            path.write_bytes(bytes(image.packed_file.data))
        except OSError as error:
            raise LocalError("invalid-image", f"{path} cannot be written: {error.strerror}; choose a folder") from error
        paths.append(path)
    return paths


def free_path(folder: Path, title: str, suffix: str) -> Path:
    """A path in a folder that no file has: the title without characters that file systems refuse, and a number."""
    stem = re.sub(r'[\\/:*?"<>|\x00-\x1f]+', "_", title).strip(" .") or "texture"
    path, number = folder / f"{stem}{suffix}", 2
    while path.exists():
        path, number = folder / f"{stem} ({number}){suffix}", number + 1
    return path


def materials_showing(job: str) -> list[Material]:
    """The local materials that show a result."""
    return [m for m in bpy.data.materials if m.library is None and result_nodes.in_use(m, job)]


def material_with(job: str) -> Material:
    """A new material that shows a result with its maps; it is kept without an object that uses it."""
    images = results.images_of(job)
    material = bpy.data.materials.new(images["image"].name)
    material.use_fake_user = True
    results.apply(job, material.name, [material], images)
    return material
