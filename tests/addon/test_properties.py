"""The scene's settings as a .blend file stores them."""

from __future__ import annotations

from typing import Any

from blender_addon import wire
from blender_addon.scene import properties


def test_choices_of_version_0_1_0_keep_their_numbers(blender: Any) -> None:
    settings = blender.context.scene.distill
    stored = {
        (settings, "kind"): ["synthesize", "restyle"],
        (settings.parameters_synthesize, "tile"): ["none", "x", "y", "xy"],
        (settings.parameters_synthesize, "preset"): ["draft", "standard", "fine"],
        (settings.parameters_synthesize, "detail"): ["auto", "off", "decoder", "pixels", "both"],
        (settings.parameters_synthesize, "method"): ["auto", "optimize", "sample"],
        (settings.parameters_restyle, "method"): ["auto", "optimize", "sample", "preview"],
        (settings.parameters_synthesize, "start"): ["auto", "noise", "fill", "quilt"],
        (settings.parameters_synthesize, "precision"): ["auto", "fp32", "bf16", "fp16"],
    }
    for (group, name), choices in stored.items():
        items = group.bl_rna.properties[name].enum_items
        assert {choice: items[choice].value for choice in choices} == {c: i for i, c in enumerate(choices)}


def test_a_new_choice_does_not_change_the_numbers_of_the_others(blender: Any) -> None:
    choices = ("auto", "mirror", "noise", "quilt", "fill")
    parameter = wire.Parameter("start", wire.Choice(choices), "auto", "Another order, with a new choice")
    group = type(
        "Changed", (blender.types.PropertyGroup,), {"__annotations__": {"start": properties.property_of(parameter)}}
    )
    blender.utils.register_class(group)
    items = group.bl_rna.properties["start"].enum_items
    assert [items[c].value for c in ("auto", "noise", "fill", "quilt")] == [0, 1, 2, 3]
    assert 255 < items["mirror"].value < 2**24, "Blender's buttons hold the number as a float"
    blender.utils.unregister_class(group)
