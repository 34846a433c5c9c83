"""Jobs from the panel's settings: the pictures, the parameters, one job for each variation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bpy.app.translations import pgettext_iface as tr
from bpy.types import Context, Image, Scene

from .. import wire
from ..link.events import PictureSource
from ..wire.errors import LocalError
from . import image_io, materials, properties, regions

TITLE_BYTES = 26
"""Length of a title without its size and seed. Blender cuts names at 63 bytes, and duplicates get a number."""


@dataclass(frozen=True)
class JobDraft:
    """A job that is ready to be submitted: everything that can be checked in Blender is valid."""

    kind: str
    title: str
    parameters: Mapping[str, Any]
    pictures: Mapping[str, PictureSource]
    sources: Mapping[str, str]
    """The names of the images that the pictures are made of."""
    regions: Sequence[tuple[str, str]]
    """(name, color in hex) of each region, if the job has label maps."""

    @property
    def swatch_name(self) -> str:
        """The name of the swatch without its suffix, for a new material."""
        return str(self.sources.get("swatch", self.title)).rsplit(".", 1)[0]


def missing(scene: Scene) -> str:
    """What the artist has to do before a job can be submitted, in one sentence; empty if nothing is missing."""
    settings = scene.distill
    kind = properties.kind_of(settings)
    for picture in kind.pictures:
        if picture.required and getattr(settings, f"image_{picture.name}") is None:
            return tr("Choose the {} first").format(tr(properties.label(picture.name).lower()))
    if settings.use_layout and properties.takes_layout(settings):
        if len(settings.regions) < 2:
            return tr("Add two regions first, or turn off Regions and Layout")
        for picture in kind.pictures:
            if picture.role == "labels" and getattr(settings, f"image_{picture.name}") is None:
                title = tr(regions.TITLES[picture.name])
                return tr("Create the {} first, or turn off Regions and Layout").format(title)
    return ""


def warnings(context: Context) -> list[str]:
    """What the artist may not expect of the result, known before the run: one sentence each."""
    objects = materials.target_objects(context)
    if not context.scene.distill.use_at_once or not objects:
        return []
    found = (materials.problem_of(objects), materials.note_of(objects))
    return [sentence for sentence in found if sentence]


def drafts(scene: Scene) -> list[JobDraft]:
    """The jobs of the scene's settings, one for each variation; raises WireError if a setting is invalid."""
    settings = scene.distill
    kind = properties.kind_of(settings)
    parameters = properties.values_of(properties.parameters_of(settings), kind)
    pictures = picture_sources(scene, kind)
    first = int(parameters.get("seed", 0))
    images = [getattr(settings, f"image_{p.name}") for p in kind.pictures if p.required]
    stems = [image.name.rsplit(".", 1)[0] for image in images]  # picture_sources has checked that all are given
    title = " in ".join(_shorten(stem, TITLE_BYTES // len(stems)) for stem in stems)
    sources = {name: getattr(settings, f"image_{name}").name for name in pictures}
    colors = zip(settings.regions, regions.colors_of(scene), strict=True)
    used_regions = [(r.name, bytes(c).hex()) for r, c in colors] if "layout" in pictures else []
    sizes = properties.output_size(settings)
    found = []
    for seed in range(first, first + settings.variations):
        values = {p.name: p.check(parameters[p.name]) for p in kind.parameters}
        if "seed" in values:
            values["seed"] = kind.parameter("seed").check(seed)
        found.append(JobDraft(kind.name, title_of(title, values, sizes), values, pictures, sources, used_regions))
    return found


def title_of(name: str, parameters: Mapping[str, Any], size: tuple[int, int]) -> str:
    """The title of a job: its images, its size and its seed, so that results can be told apart."""
    seed = f", seed {parameters['seed']}" if "seed" in parameters else ""
    return f"{name} {size[0]} x {size[1]}{seed}"


def picture_sources(scene: Scene, kind: wire.JobKind) -> dict[str, PictureSource]:
    """The pictures of a job by name; label maps only if the layout is used. Raises LocalError if one is unusable."""
    sources = {}
    for picture in kind.pictures:
        image = getattr(scene.distill, f"image_{picture.name}")
        if picture.role != "labels" and (picture.required or image is not None):
            sources[picture.name] = _source_of(image, picture.name)
    if scene.distill.use_layout and properties.takes_layout(scene.distill):
        sources |= regions.label_sources(scene)
    return sources


def _source_of(image: Image, name: str) -> PictureSource:
    what = properties.label(name).lower()
    source = image_io.source_of(image, what)
    if min(image.size) < wire.MIN_PICTURE_SIDE:
        size = f"{image.size[0]} x {image.size[1]}"
        minimum = f"the smallest side must have at least {wire.MIN_PICTURE_SIDE} pixels"
        raise LocalError("invalid-image", f"The {what} “{image.name}” is {size}; {minimum}; choose a larger image")
    return source


def _shorten(text: str, length: int) -> str:
    """The text in at most `length` bytes of UTF-8."""
    return text.encode()[:length].decode(errors="ignore").rstrip()
