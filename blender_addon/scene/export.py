"""Files of a whole result for other programs: one folder, the usual names, the normals and the packing they expect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from bpy.types import Image

from ..wire.errors import LocalError
from . import image_io, results
from .result_assets import free_path

SUFFIXES = {
    "image": "basecolor",
    "normal": "normal",
    "roughness": "roughness",
    "metallic": "metallic",
    "height": "height",
    "ambient_occlusion": "ao",
    "alpha": "opacity",
    "emission": "emission",
}
"""Ends of the files' names; a map without a meaning has its own name."""
PACKED = ("ambient_occlusion", "roughness", "metallic")
"""The maps in red, green and blue of glTF's ORM texture."""
ABSENT = {"ambient_occlusion": 1.0, "roughness": 1.0, "metallic": 0.0}
"""Values of maps that a packed file needs and the result does not have: glTF's factors then decide."""


@dataclass(frozen=True)
class ExportOptions:
    """How a result is written.

    Attributes:
        normals: the convention of the normal map. Results are OpenGL.
        gltf: occlusion, roughness and metallic in one file (`orm`), and the opacity in the alpha of the base color.
    """

    normals: Literal["OPENGL", "DIRECTX"] = "OPENGL"
    gltf: bool = False


def export_set(job: str, folder: Path, title: str, options: ExportOptions = ExportOptions()) -> list[Path]:
    """Writes the pictures of a result into a new folder of that name; returns the files.

    Pictures that need no change are written byte by byte as the service made them: 16-bit maps stay so, and the base
    color contains the job. Raises LocalError if the result has no images or a file cannot be written.
    """
    images = results.images_of(job)
    if not images:
        raise LocalError("invalid-image", f"The images of “{title}” were deleted from the file; download them again")
    pictures = {SUFFIXES.get(name, name): _plain(image) for name, image in images.items()}
    if options.normals == "DIRECTX" and "normal" in images:
        pictures["normal"] = _flipped(images["normal"])
    if options.gltf:
        pictures |= _packed(images)
        for name in (*PACKED, *(["alpha"] if "alpha" in images else [])):
            pictures.pop(SUFFIXES[name], None)
    target = free_path(folder, title, "")
    paths = {suffix: target / f"{target.name}_{suffix}.png" for suffix in pictures}
    try:
        target.mkdir(parents=True)
        for suffix, path in paths.items():
            path.write_bytes(pictures[suffix])
    except OSError as error:
        raise LocalError("invalid-image", f"{target} cannot be written: {error.strerror}; choose a folder") from error
    return list(paths.values())


def _plain(image: Image) -> bytes:
    """A picture as the service made it, or as it was painted since."""
    if image.is_dirty:
        image.pack()
    if image.packed_file is None:
        raise LocalError("invalid-image", f"The image “{image.name}” is not packed; pack it, then export it")
    return bytes(image.packed_file.data)


def _flipped(normal: Image) -> bytes:
    """A normal map with inverted green."""
    values = image_io.copy_values(normal)()
    values[..., 1] = 1 - values[..., 1]
    return image_io.encode_png(image_io.levels_of(values, normal.is_float))


def _packed(images: Mapping[str, Image]) -> dict[str, bytes]:
    """The files in which glTF has several maps."""
    found = {}
    height, width = images["image"].size[1], images["image"].size[0]
    if any(name in images for name in PACKED):
        planes = [_plane(images.get(name), (height, width), ABSENT[name]) for name in PACKED]
        found["orm"] = image_io.encode_png(image_io.levels_of(np.stack(planes, -1), deep=False))
    if "alpha" in images:
        color = image_io.pixels_of(images["image"], "result")
        alpha = image_io.levels_of(_plane(images["alpha"], (height, width), 1.0)[..., None], deep=False, channel="R")
        found["basecolor"] = image_io.encode_png(np.concatenate([color[..., :3], alpha], -1))
    return found


def _plane(image: Image | None, size: tuple[int, int], absent: float) -> np.ndarray:
    """The values of a gray map (height, width)."""
    return np.full(size, absent, np.float32) if image is None else image_io.copy_values(image)()[..., 0]
