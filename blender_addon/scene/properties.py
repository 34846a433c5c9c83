"""What a scene remembers: pictures, regions, and the parameters of every job kind, made from the fields in wire.py."""

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

ACRONYMS = {"xy": "X and Y", "x": "X", "y": "Y", "fp32": "FP32", "bf16": "BF16", "fp16": "FP16"}


def title(name: str) -> str:
    """`learning_rate` as `Learning Rate`."""
    return ACRONYMS.get(name) or name.replace("_", " ").title()


# ---------------------------------------------------------------------------------------------- from wire's fields


def property_of(parameter: wire.Parameter) -> Any:
    """The Blender property of a parameter, with its default, bounds and help; a text where Blender has no other."""
    value, automatic = parameter.value, parameter.automatic
    common: dict[str, Any] = {"name": title(parameter.name), "description": parameter.help}
    if isinstance(value, wire.Choice):
        return EnumProperty(items=[(c, title(c), "") for c in value.choices], default=parameter.default, **common)
    if not isinstance(value, wire.Integer | wire.Number):
        return StringProperty(default=value.format(parameter.default), **common)
    low = value.minimum if automatic is None else min(value.minimum, automatic)
    bounds = {"min": low, "max": value.maximum, "default": parameter.default}
    if isinstance(value, wire.Integer):
        return IntProperty(step=value.multiple, **bounds, **common)
    return FloatProperty(precision=4 if 0 < value.minimum < 0.01 else 2, **bounds, **common)


def group_of(kind: wire.JobKind) -> type[PropertyGroup]:
    """A PropertyGroup with a property for each of the kind's parameters."""
    return type(
        f"Distill{title(kind.name).replace(' ', '')}Parameters",
        (PropertyGroup,),
        {"__annotations__": {p.name: property_of(p) for p in kind.parameters}, "__doc__": kind.help},
    )


def values_of(group: PropertyGroup, kind: wire.JobKind) -> dict[str, Any]:
    """The group's values as a request has them: within their bounds, at their multiples, floats to six digits."""
    return {p.name: _value_of(p, getattr(group, p.name)) for p in kind.parameters}


def _value_of(parameter: wire.Parameter, shown: Any) -> Any:
    if parameter.given(shown) is None:
        return parameter.automatic
    if isinstance(shown, str):
        return parameter.parse(shown)
    return parameter.value.nearest(shown)


def set_values(group: PropertyGroup, kind: wire.JobKind, values: Mapping[str, Any]) -> None:
    """Writes a job's parameters into the panel."""
    for parameter in kind.parameters:
        if parameter.name in values:
            value = parameter.check(values[parameter.name])
            is_text = isinstance(getattr(group, parameter.name), str)
            setattr(group, parameter.name, parameter.value.format(value) if is_text else value)


# ---------------------------------------------------------------------------------------------- the scene's settings


class DistillRegion(PropertyGroup):
    """A part of the swatch, such as moss or mortar, and the colour that stands for it in the maps."""

    name: StringProperty(name="Name", description="What this part of the swatch is", default="Region")
    color: FloatVectorProperty(
        name="Color",
        description="The colour that stands for this region in the region map and in the layout",
        subtype="COLOR_GAMMA",
        size=3,
        min=0.0,
        max=1.0,
    )
    painted: StringProperty(
        options={"HIDDEN"}, description="The colours that it was painted with so far, as words such as e63c32"
    )


class DistillSettings(PropertyGroup):
    """What the panel shows and the scene keeps. Each job kind and each picture adds a property of its own.

    It has no methods: Blender 4.2 as a Python module ends with a crash when a PropertyGroup has some.
    """

    kind: EnumProperty(name="Kind", items=[(k.name, k.title, k.help) for k in wire.KINDS.values()])
    regions: CollectionProperty(type=DistillRegion)
    region_index: IntProperty(name="Region")
    use_layout: BoolProperty(
        name="Lay Out by Hand",
        description="Say where on the texture each part of the swatch goes",
    )
    variations: IntProperty(
        name="Variations",
        description="How many textures to make, with the seeds that follow each other",
        default=1,
        min=1,
        max=32,
    )
    use_at_once: BoolProperty(
        name="Use Results at Once",
        description="Connect a result to the material as soon as it is there. What was connected can be restored",
        default=True,
    )
    show_figures: BoolProperty(name="Figures", description="Show how each result came out, beside the swatch's own")
    journal: StringProperty(options={"HIDDEN"}, description="The jobs of this file, so that it finds its results again")
    last_result: StringProperty(name="Last Result", description="Name of the newest result's image", options={"HIDDEN"})


def kind_of(settings: DistillSettings) -> wire.JobKind:
    """The job kind that is chosen."""
    return wire.KINDS[settings.kind]


def parameters_of(settings: DistillSettings) -> PropertyGroup:
    """The parameters of the chosen kind."""
    return getattr(settings, f"parameters_{settings.kind}")


def takes(settings: DistillSettings, picture: str) -> bool:
    """Whether the chosen kind of job takes a picture of this name."""
    return any(p.name == picture for p in kind_of(settings).pictures)


def output_size(settings: DistillSettings) -> tuple[int, int]:
    """Width and height of what will be made: as set, or else those of the first picture that goes in."""
    group = parameters_of(settings)
    image = getattr(settings, f"image_{kind_of(settings).pictures[0].name}")
    own = tuple(image.size) if image is not None and min(image.size) else (512, 512)
    return getattr(group, "width", 0) or own[0], getattr(group, "height", 0) or own[1]


_groups = {kind.name: group_of(kind) for kind in wire.KINDS.values()}
for _name, _group in _groups.items():
    DistillSettings.__annotations__[f"parameters_{_name}"] = PointerProperty(type=_group)
for _picture in {p.name: p for kind in wire.KINDS.values() for p in kind.pictures}.values():
    DistillSettings.__annotations__[f"image_{_picture.name}"] = PointerProperty(
        type=Image, name=title(_picture.name), description=_picture.help
    )

classes = (DistillRegion, *_groups.values(), DistillSettings)


def register() -> None:
    for cls in classes:
        bpy.utils.register_class(cls)
    bpy.types.Scene.distill = PointerProperty(type=DistillSettings)


def unregister() -> None:
    del bpy.types.Scene.distill
    for cls in reversed(classes):
        bpy.utils.unregister_class(cls)
