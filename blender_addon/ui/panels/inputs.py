"""The section Input: the kind of job and its pictures. Label maps are in the section Regions and Layout."""

from __future__ import annotations

from typing import Any

from bpy.types import Context

from ...scene import properties
from .elements import draw_image, in_both_editors


class Input:
    """The kind of job and its pictures."""

    bl_label = "Input"
    layout: Any

    def draw(self, context: Context) -> None:
        settings = context.scene.distill
        self.layout.row().prop(settings, "kind", expand=True)
        for picture in properties.kind_of(settings).pictures:
            if picture.role == "labels":
                continue
            column = self.layout.column(align=True)
            column.label(text=properties.label(picture.name))
            column.template_ID(settings, f"image_{picture.name}", open="image.open")
            row = column.row(align=True)
            row.operator("distill.picture_from_material", icon="MATERIAL").picture = picture.name
            if context.area.type == "IMAGE_EDITOR":
                row.operator("distill.picture_from_editor", icon="IMAGE_DATA").picture = picture.name
            if (image := getattr(settings, f"image_{picture.name}")) is not None:
                unsaved = ["Unsaved changes"] if image.is_dirty else []
                draw_image(self.layout, image, [f"{image.size[0]} x {image.size[1]}", *unsaved])


classes = in_both_editors(Input)
