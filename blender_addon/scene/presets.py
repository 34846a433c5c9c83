"""Presets of a job kind's parameters, in Blender's own preset folders and among those that ship with the add-on."""

from __future__ import annotations

from pathlib import Path

from .. import wire

SHIPPED = Path(__file__).resolve().parent.parent / "presets"
"""Folder with a folder of presets for each job kind."""
KINDS = tuple(kind for name, kind in wire.KINDS.items() if (SHIPPED / name).is_dir())
"""The job kinds that have presets."""
FOLDER = "texture_distiller"
WITHOUT = ("seed", "model", "crop", "corners", "real_width")
"""Parameters that belong to one swatch, one machine or one result, and are in no preset."""


def subfolder(kind: str) -> str:
    """The folder of a job kind's presets within Blender's presets."""
    return f"{FOLDER}/{kind}"


def names(kind: wire.JobKind) -> list[str]:
    """The parameters that a preset of a job kind sets."""
    return [parameter.name for parameter in kind.parameters if parameter.name not in WITHOUT]
