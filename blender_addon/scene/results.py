"""Results in the open file: packed images that know how they were made. Import, list, filter, and delete them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import bpy
from bpy.types import ID, Context, Image, Material, Screen

from ..link.records import JobRecord
from ..wire.errors import LocalError
from . import image_io, mapping, materials, result_nodes, triplanar
from .materials import JOB, OUTPUT

FAVORITE = "distill_favorite"
"""Custom property of a result's image: whether the artist marked it."""
SWATCH = "distill_swatch"
"""Custom property of a result's image: the name of the swatch's image."""
INPUTS = "distill_inputs"
"""Custom property of a result's image: the names of the job's images and its regions, as JSON."""


@dataclass(frozen=True)
class Filter:
    """Which results the gallery shows: favorites only, those of a swatch, those whose title has a text."""

    favorites: bool = False
    swatch: str = ""
    text: str = ""

    def matches(self, image: Image) -> bool:
        return (
            (not self.favorites or bool(image.get(FAVORITE)))
            and self.swatch in ("", image.get(SWATCH, ""))
            and self.text.lower() in image.name.lower()
        )


def import_result(record: JobRecord, pictures: Mapping[str, bytes]) -> None:
    """Adds a job's pictures to the file as packed images, and applies them to the job's materials if that is chosen.

    Raises LocalError if a material cannot take the result; the images are in the file then.
    """
    images = {}
    for output, png in pictures.items():
        suffix = "" if output == "image" else f" {output}"
        image = image_io.new_image(f"{record.title}{suffix}", png, data=output in materials.DATA_MAPS)
        image.use_fake_user = True  # Blender does not save images without users
        image_io.store_size(image, png)
        write_properties(image, record, output)
        images[output] = image
    record.imported = True
    settings = bpy.context.scene.distill
    settings.last_result = images["image"].name
    if not settings.use_at_once:
        return
    names = record.materials or ({"": record.material} if record.material else {})
    targets = [found for key, name in names.items() if (found := materials.find(key, name)) is not None]
    if names and not targets:
        raise LocalError(
            "invalid-image",
            f"The material of “{record.title}” is no longer in the file; select an object and press Apply",
        )
    apply(record.job, record.title, targets, images)


def apply(job: str, title: str, targets: Sequence[Material], images: Mapping[str, Image]) -> None:
    """Shows a result in materials; raises LocalError, before any is changed, if one cannot take it."""
    for material in targets:
        if problem := materials.problem_of_material(material):
            raise materials.unusable(material, problem)
    for material in targets:
        result_nodes.apply(material, job, title, images)
        mapping.fit(material, materials.user_of(material))


def write_properties(image: Image, record: JobRecord, output: str) -> None:
    """Writes how an image was made into custom properties, which the artist can read."""
    image[JOB], image[OUTPUT] = record.job, output
    image["distill_kind"], image["distill_seed"] = record.kind, record.seed
    image["distill_parameters"] = json.dumps(dict(record.parameters))
    image["distill_request"] = json.dumps(dict(record.request))
    image[SWATCH] = str(record.sources.get("swatch", ""))
    image[INPUTS] = json.dumps({"images": dict(record.sources), "regions": [list(r) for r in record.regions]})
    for name, value in record.metrics.items():
        image[f"distill_{name}"] = float(value)


def record_of(image: Image) -> JobRecord:
    """The job of a result's image by its custom properties, where the file's journal no longer has it."""
    request, inputs = mapping.json_of(image, "distill_request"), mapping.json_of(image, INPUTS)
    record = JobRecord(
        str(image[JOB]),
        str(image.get("distill_kind", "synthesize")),
        image.name,
        mapping.json_of(image, "distill_parameters"),
        "",
        state="succeeded",
        request=request,
        sources=dict(inputs.get("images", {})),
        regions=[tuple(pair) for pair in inputs.get("regions", ())],
        imported=True,
    )
    names = {key.removeprefix("distill_"): key for key in image.keys()}  # noqa: SIM118 - an ID is not a mapping
    record.metrics = {name: image[key] for name, key in names.items() if isinstance(image[key], float)}
    return record


# ---------------------------------------------------------------------------------------------- the gallery


def all_results() -> dict[str, Image]:
    """The base color image of each result in the file by its job. One pass over the images."""
    return {i[JOB]: i for i in bpy.data.images if JOB in i and i.get(OUTPUT) == "image"}


def gallery(found: Mapping[str, Image], order: Iterable[str], chosen: Filter) -> list[Image]:
    """The results of `all_results` that a filter lets through: in the order of jobs, then the others by name."""
    ordered = {job: found[job] for job in order if job in found}
    return [image for image in {**ordered, **found}.values() if chosen.matches(image)]


def swatches(found: Mapping[str, Image]) -> list[str]:
    """The names of the swatches that results were made from."""
    return sorted({name for image in found.values() if (name := image.get(SWATCH))})


def image_of(job: str, output: str = "image") -> Image | None:
    """A picture of a job's result, found by its custom properties, since the artist may rename it."""
    return next((i for i in bpy.data.images if i.get(JOB) == job and i.get(OUTPUT) == output), None)


def images_of(job: str) -> dict[str, Image]:
    """All pictures of a job's result that are in the file, the base color first. UDIM images are not among them."""
    outputs = ("image", *materials.DATA_MAPS)
    found = {i[OUTPUT]: i for i in bpy.data.images if i.get(JOB) == job and i.get(OUTPUT) in outputs}
    return dict(sorted(found.items(), key=lambda pair: outputs.index(pair[0])))


# ---------------------------------------------------------------------------------------------- deleting


def is_chosen_one_shown(context: Context) -> bool:
    """Whether results are applied, and a material shows the result that is large in the gallery.

    One that no material gets, such as a second variation, does not take its place then.
    """
    chosen = context.window_manager.distill_result
    return bool(context.scene.distill.use_at_once and chosen and users_of(chosen))


def users_of(job: str) -> list[Material]:
    """The materials that show a job's result."""
    return [m for m in bpy.data.materials if result_nodes.in_use(m, job)]


def used_jobs() -> set[str]:
    """The jobs whose results a material shows, or whose images anything else in the file uses.

    Editors that show an image and frames that are not connected do not count.
    """
    images = [image for image in bpy.data.images if JOB in image]
    used = {result_nodes.shown_job(material) for material in bpy.data.materials}
    users = bpy.data.user_map(subset=images)
    return used | {image[JOB] for image in images if any(_uses(user, image) for user in users.get(image, ()))}


def _uses(user: ID, image: Image) -> bool:
    """Whether a datablock needs an image, other than in the frame of a result."""
    if isinstance(user, Material):
        nodes = user.node_tree.nodes if user.node_tree is not None else ()
        return any(getattr(n, "image", None) == image and not materials.is_in_result(n) for n in nodes)
    return not isinstance(user, Screen) and triplanar.GROUP not in user


def unused() -> list[str]:
    """The jobs whose results nothing in the file uses and that are no favorites."""
    used = used_jobs()
    return [job for job, image in all_results().items() if not image.get(FAVORITE) and job not in used]


def memory_of(jobs: Iterable[str]) -> int:
    """Bytes that the packed images of results take in the file."""
    wanted = set(jobs)
    images = [image for image in bpy.data.images if image.get(JOB) in wanted]
    return sum(packed.size for image in images for packed in (p.packed_file for p in image.packed_files))


def delete(jobs: Iterable[str]) -> int:
    """Deletes the images of results, with their frames in materials that do not show them; returns how many images."""
    wanted = set(jobs)
    for material in bpy.data.materials:
        if material.library is None:
            for job in wanted & {frame[JOB] for frame in result_nodes.frames(material)}:
                result_nodes.remove_frames(material, job)
    images = [image for image in bpy.data.images if image.get(JOB) in wanted and image.library is None]
    for image in images:
        bpy.data.images.remove(image)
    return len(images)


def release(job: str) -> None:
    """Lets Blender drop a result's images when the file is saved, unless something uses them."""
    for image in bpy.data.images:
        if image.get(JOB) == job:
            image.use_fake_user = False
