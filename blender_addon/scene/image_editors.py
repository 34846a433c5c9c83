"""Image Editors: find or open one, show a picture in it, and paste one from the clipboard."""

from __future__ import annotations

import bpy
from bpy.types import Area, Context, Image, Region, SpaceImageEditor, Window

EDITOR_SHARE = 0.4
"""Share of the 3D View's width that a new Image Editor takes."""
FIT_SECONDS = 0.2
"""Time until a new editor was drawn and knows its size."""


def show(context: Context, image: Image, repeat: bool) -> bool:
    """Shows an image in an Image Editor in view mode, as large as it fits; False if there is none and no 3D View."""
    area = find_or_open(context)
    if area is None:
        return False
    space = area.spaces.active
    space.image = image
    space.ui_mode = "VIEW"
    space.show_repeat = repeat
    if not bpy.app.background:
        bpy.app.timers.register(_Fit(area), first_interval=FIT_SECONDS)
    return True


def opened() -> list[tuple[Window, Area]]:
    """The Image Editors of all windows, with their windows."""
    windows = bpy.context.window_manager.windows
    return [(w, a) for w in windows for a in w.screen.areas if isinstance(a.spaces.active, SpaceImageEditor)]


def painted() -> list[tuple[Window, Area]]:
    """The Image Editors in paint mode, with their windows."""
    return [(window, area) for window, area in opened() if area.spaces.active.ui_mode == "PAINT"]


def find_or_open(context: Context, share: float = EDITOR_SHARE) -> Area | None:
    """The context's Image Editor, another one on the screen, or a new one with a share of the largest 3D View."""
    if context.area is not None and context.area.type == "IMAGE_EDITOR":
        return context.area
    if context.screen is None:
        return None
    areas = list(context.screen.areas)
    found = next((a for a in areas if a.type == "IMAGE_EDITOR"), None)
    if found is not None or bpy.app.background:
        return found
    view = max((a for a in areas if a.type == "VIEW_3D"), key=lambda a: a.width * a.height, default=None)
    if view is None:
        return None
    with context.temp_override(area=view, region=view.regions[-1]):
        bpy.ops.screen.area_split(direction="VERTICAL", factor=share)
    new = next(a for a in context.screen.areas if a not in areas)
    left, right = sorted((view, new), key=lambda a: a.x)
    editor = left if left.width < right.width else right
    editor.type = "IMAGE_EDITOR"
    return editor


class _Fit:
    """A timer that fits the picture into an editor, if that is still open. A new editor has to be drawn first."""

    def __init__(self, area: Area) -> None:
        self.pointer, self.tries = area.as_pointer(), 10

    def __call__(self) -> float | None:
        self.tries -= 1
        for window, area in opened():
            region = next((r for r in area.regions if r.type == "WINDOW"), None)
            if area.as_pointer() == self.pointer and region is not None:
                with bpy.context.temp_override(window=window, area=area, region=region):
                    bpy.ops.image.view_all(fit_view=True)
                return None if self.tries == 0 or _fills(region) else FIT_SECONDS
        return None


def _fills(region: Region) -> bool:
    """Whether the picture has at least half the width or the height of its region."""
    left, bottom = region.view2d.view_to_region(0.0, 0.0, clip=False)
    right, top = region.view2d.view_to_region(1.0, 1.0, clip=False)
    return right - left > region.width / 2 or top - bottom > region.height / 2


def paste(context: Context) -> Image | None:
    """The image in the clipboard as a packed image; None if there is none. Needs an area."""
    area = next((a for a in context.screen.areas if a.type == "IMAGE_EDITOR"), context.area)
    kind, before = area.ui_type, set(bpy.data.images)
    area.type = "IMAGE_EDITOR"  # Blender pastes into such an editor only
    shown = area.spaces.active.image
    try:
        with context.temp_override(area=area, region=area.regions[-1]):
            bpy.ops.image.clipboard_paste()
    except RuntimeError:
        pass
    new = next(iter(set(bpy.data.images) - before), None)
    if area.ui_type != kind:
        area.spaces.active.image = shown
        area.ui_type = kind
    if new is not None:
        new.pack()
    return new
