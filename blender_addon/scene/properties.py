"""The scene's settings: pictures, regions, and the parameters of every job kind, made from the contract."""

import math
import zlib
from collections.abc import Mapping
from typing import Any

import bpy
from bpy.props import (
    BoolProperty,
    CollectionProperty,
    EnumProperty,
    FloatProperty,
    FloatVectorProperty,
    IntProperty,
    PointerProperty,
    StringProperty,
)
from bpy.types import Image, PropertyGroup

from .. import wire
from ..translations import OWN_CONTEXT
from ..wire.errors import LocalError

PICTURES = {picture.name: picture for kind in wire.TEXTURE_KINDS.values() for picture in kind.pictures}
"""The pictures of all job kinds by name."""
EDIT_KINDS = wire.EDIT_KINDS | {wire.ESTIMATE.name: wire.ESTIMATE}
"""The kinds of job that change a finished picture, in the order in which the panel offers them."""
EDIT_PICTURES = {
    p.name: p for kind in EDIT_KINDS.values() for p in kind.pictures if p.name not in PICTURES and p.role != "labels"
}
"""The pictures that only edits take and that the artist chooses."""
LABEL_MAPS = tuple(name for name, picture in PICTURES.items() if picture.role == "labels")
"""Names of the pictures that are painted in the colors of the regions."""

LABELS = {
    "content": "Image to Restyle",
    "tile": "Tiling",
    "real_width": "Real Width (m)",
    "lens": "Lens Distortion",
    "even_light": "Even Lighting",
    "preset": "Quality",
    "detail": "Sharpening",
    "content_weight": "Keep Structure",
    "x": "X",
    "y": "Y",
    "xy": "X and Y",
    "auto": "Automatic",
    "optimize": "Optimize",
    "fp32": "FP32",
    "bf16": "BF16",
    "fp16": "FP16",
    "start": "Start From",
    "fill": "Random Pixels",
    "quilt": "Swatch Pieces",
    "decoder": "In Decoder",
    "pixels": "In Pixels",
    "opengl": "OpenGL",
    "directx": "DirectX",
    "missing": "Missing Maps",
}
"""Names in the panel that differ from the contract's name with capitals."""
AUTOMATIC_LABELS = {"scale": "Fit", "real_width": "Unknown"}
"""What the panel shows in place of an automatic value; “Automatic” otherwise."""
STORED_CHOICES = {
    "kind": ("synthesize", "restyle"),
    "tile": ("none", "x", "y", "xy"),
    "preset": ("draft", "standard", "fine"),
    "detail": ("auto", "off", "decoder", "pixels", "both"),
    "method": ("auto", "optimize", "sample", "preview"),
    "start": ("auto", "noise", "fill", "quilt"),
    "precision": ("auto", "fp32", "bf16", "fp16"),
}
"""Choices that .blend files of version 0.1.0 store by their index in these tuples. Do not change or extend them."""
FIRST_VALUES = {
    "scale": 1.0,
    "real_width": 1.0,
    "strength": 0.5,
    "steps": 30,
    "iterations": 2,
    "learning_rate": 0.05,
    "content_weight": 0.25,
}
"""Values of automatic parameters when the artist first takes control of them: in the middle of what is useful."""


def label(name: str) -> str:
    """A name of the contract as the panel shows it: `learning_rate` as `Learning Rate`."""
    return LABELS.get(name) or name.replace("_", " ").title()


# ---------------------------------------------------------------------------------------------- from the contract


def choice_number(name: str, choice: str) -> int:
    """The number by which a .blend file stores a choice: independent of the order in which the contract lists them.

    It is the index in STORED_CHOICES, or a checksum of the choice (256 to 2^24 - 1) if the choice is not listed there:
    Blender's buttons hold the number as a 32-bit float, and would choose another one beyond that.
    """
    stored = STORED_CHOICES.get(name, ())
    return stored.index(choice) if choice in stored else zlib.crc32(choice.encode()) & 0xFFFFFF | 256


def property_of(parameter: wire.Parameter) -> Any:
    """The Blender property of a parameter, with its default, bounds and help; a text where Blender has no other."""
    value, automatic = parameter.value, parameter.automatic
    common: dict[str, Any] = {"name": label(parameter.name), "description": parameter.help}
    if isinstance(value, wire.Choice):
        items = [(c, label(c), "", choice_number(parameter.name, c)) for c in value.choices]
        return EnumProperty(items=items, default=parameter.default, translation_context=OWN_CONTEXT, **common)
    if not isinstance(value, wire.Integer | wire.Number):
        return StringProperty(default=value.format(parameter.default), **common)
    low = value.minimum if automatic is None else min(value.minimum, automatic)
    bounds = {"min": low, "max": value.maximum, "default": parameter.default}
    if isinstance(value, wire.Integer):
        return IntProperty(step=value.multiple, **bounds, **common)
    unit = {"subtype": "FACTOR"} if (value.minimum, value.maximum) == (0.0, 1.0) else {}
    decimals = max(2, math.ceil(-math.log10(value.minimum))) if value.minimum > 0 else 2
    return FloatProperty(precision=decimals, **bounds, **common, **unit)


def group_of(kind: wire.JobKind) -> type[PropertyGroup]:
    """A PropertyGroup with a property for each of the kind's parameters."""
    return type(
        f"Distill{kind.name.title().replace('_', '')}Parameters",
        (PropertyGroup,),
        {"__annotations__": {p.name: property_of(p) for p in kind.parameters}, "__doc__": kind.help},
    )


def values_of(group: PropertyGroup, kind: wire.JobKind) -> dict[str, Any]:
    """The group's values as in a request: within their bounds, at their multiples, floats to six digits."""
    return {p.name: _value_of(p, getattr(group, p.name)) for p in kind.parameters}


def _value_of(parameter: wire.Parameter, shown: Any) -> Any:
    if parameter.given(shown) is None:
        return parameter.automatic
    if isinstance(shown, str):
        return parameter.parse(shown)
    return parameter.value.nearest(shown)


# ---------------------------------------------------------------------------------------------- the scene's settings


class DistillRegion(PropertyGroup):
    """A part of the swatch, such as moss or mortar, and the color that stands for it in the maps."""

    name: StringProperty(name="Name", description="What this part of the swatch is", default="Region")
    color: FloatVectorProperty(
        name="Color",
        description="The color that stands for this region in the region map and in the layout",
        subtype="COLOR_GAMMA",
        size=3,
        min=0.0,
        max=1.0,
    )
    painted: StringProperty(
        options={"HIDDEN"}, description="Colors that this region was painted with so far, in hex, separated by spaces"
    )


class DistillMap(PropertyGroup):
    """A map of the swatch, pixel by pixel over it: what it is, and where its values are."""

    name: StringProperty(name="Map", description="What the values mean", default="data")
    image: PointerProperty(type=Image, name="Image", description="The image with the values of this map")
    channel: EnumProperty(
        name="Channel",
        description="What of the image is used",
        items=[
            ("RGB", "RGB", "The whole image", 0),
            ("R", "Red", "The red channel of a packed image", 1),
            ("G", "Green", "The green channel of a packed image", 2),
            ("B", "Blue", "The blue channel of a packed image", 3),
            ("A", "Alpha", "The alpha channel of the image", 4),
        ],
    )
    inverted: BoolProperty(name="Invert", description="Exchange black and white, as for a glossiness map")


class DistillSettings(PropertyGroup):
    """What the panel shows and the scene stores. Each job kind and each picture adds a property.

    It has no methods and no callbacks: Blender 4.2 as a Python module crashes at exit if a PropertyGroup has some.
    """

    kind: EnumProperty(
        name="Job",
        items=[(k.name, k.title, k.help, choice_number("kind", k.name)) for k in wire.TEXTURE_KINDS.values()],
    )
    regions: CollectionProperty(type=DistillRegion)
    region_index: IntProperty(name="Region")
    maps: CollectionProperty(type=DistillMap)
    map_index: IntProperty(name="Map")
    use_layout: BoolProperty(
        name="Use Layout",
        description="Paint where on the texture each material of the swatch appears",
    )
    variations: IntProperty(
        name="Variations",
        description="Number of textures to make, with consecutive seeds",
        default=1,
        min=1,
        max=32,
    )
    use_at_once: BoolProperty(
        name="Apply Results Automatically",
        description="Connect each new result to the material. The original texture can be restored",
        default=True,
    )
    journal: StringProperty(options={"HIDDEN"}, description="The jobs of this file, to find their results again")
    last_result: StringProperty(name="Last Result", description="Name of the newest result's image", options={"HIDDEN"})


def kind_of(settings: DistillSettings, edit: bool = False) -> wire.JobKind:
    """The job kind that is chosen, of those that make a texture or of those that edit one."""
    return wire.KINDS[settings.edit if edit else settings.kind]


def parameters_of(settings: DistillSettings, edit: bool = False) -> Any:
    """The group of the chosen kind's parameters."""
    return getattr(settings, f"parameters_{settings.edit if edit else settings.kind}")


def reuse(settings: DistillSettings, kind_name: str, values: Mapping[str, Any]) -> None:
    """Chooses a job's kind and its parameters. Names of older versions are understood.

    Raises WireError, before anything is changed, if the kind is unknown or a value is invalid.
    """
    edit = kind_name in EDIT_KINDS
    kind = (EDIT_KINDS if edit else wire.TEXTURE_KINDS).get(kind_name)
    if kind is None:
        raise LocalError("invalid-request", f"The job kind “{kind_name}” is unknown; update the add-on")
    checked = [(p, p.check(values[p.name])) for p in kind.parameters if p.name in values]
    if edit:
        settings.edit = kind.name
    else:
        settings.kind = kind.name
    group = parameters_of(settings, edit)
    for parameter, value in checked:
        is_text = isinstance(getattr(group, parameter.name), str)
        setattr(group, parameter.name, parameter.value.format(value) if is_text else value)


def takes_layout(settings: DistillSettings) -> bool:
    """Whether the chosen kind of job can use a painted layout."""
    return any(p.role == "labels" for p in kind_of(settings).pictures)


def tiles(settings: DistillSettings) -> tuple[bool, bool]:
    """Whether the texture tiles along y and x."""
    tile = getattr(parameters_of(settings), "tile", "none")
    return "y" in tile, "x" in tile


def automatic_parameters(settings: DistillSettings, edit: bool = False) -> dict[str, wire.Parameter]:
    """The numbers among the chosen kind's parameters that have an automatic value, by name."""
    numbers = [p for p in kind_of(settings, edit).parameters if isinstance(p.value, wire.Integer | wire.Number)]
    return {p.name: p for p in numbers if p.automatic is not None}


def toggle_automatic(settings: DistillSettings, name: str, edit: bool = False) -> None:
    """Sets a parameter to its automatic value, or to a useful first value if it is automatic."""
    group, parameter = parameters_of(settings, edit), kind_of(settings, edit).parameter(name)
    first = parameter.value.nearest(FIRST_VALUES.get(name, parameter.automatic))
    setattr(group, name, first if getattr(group, name) == parameter.automatic else parameter.automatic)


def show_used_values(settings: DistillSettings) -> None:
    """Sets numbers of the chosen kind to the values that a job uses: 500 pixels to 496, the nearest multiple of 8."""
    group = parameters_of(settings)
    for parameter in kind_of(settings).parameters:
        shown = getattr(group, parameter.name)
        if isinstance(parameter.value, wire.Integer) and parameter.given(shown) is not None:
            used = parameter.value.nearest(shown)
            if used != shown:
                setattr(group, parameter.name, used)


def output_size(settings: DistillSettings) -> tuple[int, int]:
    """Width and height of the result as the job makes it: as set, or else those of the kind's first picture."""
    kind, group = kind_of(settings), parameters_of(settings)
    image = getattr(settings, f"image_{kind.pictures[0].name}")
    own = tuple(image.size) if image is not None and min(image.size) else (512, 512)
    sides = {"width": own[0], "height": own[1]}
    for parameter in kind.parameters:
        if parameter.name in sides:
            given = parameter.given(getattr(group, parameter.name))
            sides[parameter.name] = parameter.value.nearest(sides[parameter.name] if given is None else given)
    return sides["width"], sides["height"]


GROUPS = {kind.name: group_of(kind) for kind in (wire.TEXTURE_KINDS | EDIT_KINDS).values()}
"""The property group of each kind's parameters."""
DistillSettings.__annotations__["edit"] = EnumProperty(
    name="Edit", items=[(k.name, k.title, k.help, choice_number("edit", k.name)) for k in EDIT_KINDS.values()]
)
for _name, _group in GROUPS.items():
    DistillSettings.__annotations__[f"parameters_{_name}"] = PointerProperty(type=_group)
for _picture in (PICTURES | EDIT_PICTURES).values():
    DistillSettings.__annotations__[f"image_{_picture.name}"] = PointerProperty(
        type=Image, name=label(_picture.name), description=_picture.help
    )
for _map in LABEL_MAPS:
    DistillSettings.__annotations__[f"step_{_map}"] = StringProperty(
        options={"HIDDEN"}, description="Which change of this map by the add-on the scene is in, for undo"
    )

GALLERY = {
    "result": StringProperty(name="Active Result", description="Job of the result that is shown large"),
    "page": IntProperty(name="Page", description="Page of the gallery", min=0),
    "search": StringProperty(
        name="Search", description="Show results whose name contains this text", options={"TEXTEDIT_UPDATE"}
    ),
    "only_favorites": BoolProperty(name="Favorites", description="Show favorites only"),
    "swatch": StringProperty(name="Swatch", description="Show results of this swatch only. Empty: of all swatches"),
    "compare": StringProperty(
        name="Compare With", description="Job of the result that the active one is compared with"
    ),
    "split": FloatProperty(
        name="Split",
        description="Place of the line between the two results, from left to right",
        default=0.5,
        min=0.0,
        max=1.0,
        subtype="FACTOR",
    ),
    "split_on": BoolProperty(
        name="Split View", description="Whether the Image Editor shows both results", options={"HIDDEN"}
    ),
}
"""State of the gallery in the window manager, which is neither saved nor undone. Each name starts with `distill_`."""

classes = (DistillRegion, DistillMap, *GROUPS.values(), DistillSettings)


def add_to_blender() -> None:
    """Adds `Scene.distill`, and the panel's own state, which is neither saved nor undone, to the window manager."""
    bpy.types.Scene.distill = PointerProperty(type=DistillSettings)
    bpy.types.WindowManager.distill_show_metrics = BoolProperty(
        name="Measurements", description="Show how good the result is, compared with the swatch"
    )
    bpy.types.WindowManager.distill_overlay = BoolProperty(
        name="Overlay",
        description="While painting, show the layout on the model, and the swatch through its region map",
        default=True,
    )
    bpy.types.WindowManager.distill_overlay_strength = FloatProperty(
        name="Strength",
        description="How strongly the maps cover the model and the swatch",
        subtype="FACTOR",
        default=0.5,
        min=0.0,
        max=1.0,
    )
    bpy.types.WindowManager.distill_parts = IntProperty(
        name="Parts", description="Number of parts to divide the swatch into", default=2, min=2, max=8
    )
    for name, value in GALLERY.items():
        setattr(bpy.types.WindowManager, f"distill_{name}", value)


def remove_from_blender() -> None:
    for name in GALLERY:
        delattr(bpy.types.WindowManager, f"distill_{name}")
    del bpy.types.WindowManager.distill_parts
    del bpy.types.WindowManager.distill_overlay_strength
    del bpy.types.WindowManager.distill_overlay
    del bpy.types.WindowManager.distill_show_metrics
    del bpy.types.Scene.distill
