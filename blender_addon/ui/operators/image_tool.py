"""A tool in the Image Editor: an operator that runs until Enter, Escape or the right mouse button.

Meanwhile the view can be moved and zoomed, and the sidebar and the other editors can be used.
"""

from collections.abc import Iterator
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as tr
from bpy.types import Area, Context, Event, Operator, Region, SpaceImageEditor

from ... import wire
from ...scene import image_editors, image_io, windows
from .. import overlays
from .reports import Done, fail

NAVIGATION = {
    "MIDDLEMOUSE",
    "WHEELUPMOUSE",
    "WHEELDOWNMOUSE",
    "WHEELLEFTMOUSE",
    "WHEELRIGHTMOUSE",
    "WHEELINMOUSE",
    "WHEELOUTMOUSE",
    "TRACKPADPAN",
    "TRACKPADZOOM",
    "MOUSEROTATE",
    "MOUSESMARTZOOM",
    "NDOF_MOTION",
    "HOME",
    "NUMPAD_PLUS",
    "NUMPAD_MINUS",
    "NUMPAD_1",
    "NUMPAD_2",
    "NUMPAD_4",
    "NUMPAD_8",
}
"""Events that move or zoom the view."""
TOOL_SHARE = 0.5
"""Share of the 3D View's width that a new Image Editor takes."""


class ToolOverlay:
    """What a running tool draws. It outlives the operator's Python object, which Blender may free at any time."""

    def __init__(self, area: Area) -> None:
        self.area = area.as_pointer()
        self.frame: Any = None
        self.hover: Any = ""
        self.pointer = (0.0, 0.0)
        self.handler: Any = None

    def show(self, draw: Any) -> None:
        self.handler = SpaceImageEditor.draw_handler_add(self._draw, (draw,), "WINDOW", "POST_PIXEL")

    def hide(self) -> None:
        if self.handler is not None:
            SpaceImageEditor.draw_handler_remove(self.handler, "WINDOW")
            self.handler = None

    def _draw(self, draw: Any) -> None:
        context = bpy.context
        if context.area.as_pointer() == self.area and context.space_data.image is not None:
            draw(self, overlays.View(context.region, context.space_data.image.size))


class ImageTool(Operator):
    """A modal operator in the Image Editor. Subclasses say what the mouse does and what is drawn."""

    operator_name = ""
    ending = "Enter: apply    Esc, Right Mouse: cancel"
    overlay: ToolOverlay
    timer: Any = None

    @classmethod
    def poll(cls, context: Context) -> bool:
        image = context.scene.distill.image_swatch
        if image is None or not min(image.size):
            cls.poll_message_set("Choose the swatch first" if image is None else "The swatch has no pixels")
        elif is_running(context):
            cls.poll_message_set("Finish the tool in the Image Editor first: Enter applies, Escape cancels")
        else:
            return True
        return False

    def invoke(self, context: Context, _event: Event) -> Done:
        try:
            image_io.check_usable(context.scene.distill.image_swatch, "swatch")
        except wire.WireError as error:
            return fail(self, error)
        area = image_editors.find_or_open(context, TOOL_SHARE)
        if area is None:
            self.report({"ERROR"}, "There is no Image Editor to show the swatch in")
            return {"CANCELLED"}
        region = _window_region(area)
        if context.area != area or context.region != region:
            try:
                with context.temp_override(area=area, region=region):
                    getattr(bpy.ops.distill, self.operator_name)("INVOKE_DEFAULT")
            except RuntimeError as error:
                self.report({"ERROR"}, str(error).removeprefix("Error: ").strip())
            return {"CANCELLED"}  # this call; the one in the Image Editor has begun
        self.overlay = ToolOverlay(area)
        self.fits = area.spaces.active.image != context.scene.distill.image_swatch
        self.show(context, area)
        if not self.begin(context):
            return {"CANCELLED"}
        self.overlay.show(type(self).draw)
        self.timer = context.window_manager.event_timer_add(0.1, window=context.window)
        context.window_manager.modal_handler_add(self)
        self.describe(context)
        return {"RUNNING_MODAL"}

    def modal(self, context: Context, event: Event) -> Done:
        if context.area is None or context.area.type != "IMAGE_EDITOR" or not self.is_shown(context):
            return self._end(context, {"CANCELLED"})
        if self.fits:  # not earlier: a new editor has no size yet
            self.fits = False
            fit_view(context)
        if event.type == "TIMER":
            return self.tick(context)
        inside = _is_inside(context.region, context.area, event)
        holding = bool(self.is_holding())
        if event.type in NAVIGATION or not (inside or holding):
            if event.type == "MOUSEMOVE":
                self.describe(context)  # the lens may be dragged in the sidebar
            return {"PASS_THROUGH"}
        if event.type in {"RET", "NUMPAD_ENTER"} and event.value == "PRESS":
            return self._finish(context)
        if event.type in {"ESC", "RIGHTMOUSE"} and event.value == "PRESS":
            return self._end(context, {"CANCELLED"})
        if event.type in {"MOUSEMOVE", "LEFTMOUSE", "BACK_SPACE", "DEL", "LEFT_SHIFT", "RIGHT_SHIFT"}:
            self.on_mouse(context, event)
            self.describe(context)
            context.area.tag_redraw()
        return {"RUNNING_MODAL"}

    def cancel(self, context: Context) -> None:
        """Called by Blender, for example when another file is opened."""
        self._end(context, {"CANCELLED"})

    def tick(self, context: Context) -> Done:
        """Called by the timer, which tools without more to wait for need once: to show the whole picture."""
        self.stop_timer(context)
        return {"PASS_THROUGH"}

    def stop_timer(self, context: Context) -> None:
        if self.timer is not None:
            context.window_manager.event_timer_remove(self.timer)
            self.timer = None

    def is_shown(self, context: Context) -> bool:
        """Whether the editor still shows what the tool works on."""
        return True

    def show(self, context: Context, area: Area) -> None:
        """Shows the swatch in the editor."""
        space = area.spaces.active
        space.image, space.ui_mode, space.show_repeat = context.scene.distill.image_swatch, "VIEW", False

    def begin(self, context: Context) -> bool:
        """Prepares the overlay; returns whether the tool can run."""
        raise NotImplementedError

    def is_holding(self) -> bool:
        """Whether something is dragged."""
        return False

    def on_mouse(self, context: Context, event: Event) -> None:
        """Follows the mouse."""

    def apply(self, context: Context) -> str:
        """Stores what was chosen; returns why that is impossible, or an empty text."""
        return ""

    def revert(self, context: Context) -> None:
        """Restores what was changed while the tool ran."""

    def status(self) -> tuple[str, str]:
        """A text for the header of the editor, and one for the status bar."""
        raise NotImplementedError

    @staticmethod
    def draw(overlay: ToolOverlay, view: overlays.View) -> None:
        """Draws over the picture."""
        raise NotImplementedError

    def describe(self, context: Context) -> None:
        header, keys = self.status()
        context.area.header_text_set(header)
        view = tr("Middle Mouse, Wheel: move and zoom")
        context.workspace.status_text_set(f"{keys}    {view}    {tr(self.ending)}")

    def _finish(self, context: Context) -> Done:
        if problem := self.apply(context):
            self.report({"WARNING"}, problem)
            return {"RUNNING_MODAL"}
        return self._end(context, {"FINISHED"})

    def _end(self, context: Context, done: Done) -> Done:
        self.overlay.hide()
        self.stop_timer(context)
        if done == {"CANCELLED"}:
            self.revert(context)
        if context.area is not None:
            context.area.header_text_set(None)
            context.area.tag_redraw()
        if context.workspace is not None:
            context.workspace.status_text_set(None)
        windows.redraw()
        return done


def _window_region(area: Area) -> Region:
    return next(region for region in area.regions if region.type == "WINDOW")


def _is_inside(region: Region, area: Area, event: Event) -> bool:
    """Whether the mouse is over the picture: in the region, and not over the sidebar or a header that lie over it."""
    x, y = event.mouse_x, event.mouse_y
    if not _contains(region, x, y):
        return False
    return not any(_contains(r, x, y) for r in area.regions if r.type != "WINDOW" and min(r.width, r.height) > 1)


def fit_view(context: Context) -> None:
    """Shows the whole picture beside the sidebar, which lies over the region."""
    bpy.ops.image.view_all(fit_view=True)
    region, size = context.region, context.space_data.image.size
    free = overlays.free_width(context.area, region)
    if free < region.width:
        width = context.space_data.zoom[0] * size[0]
        bpy.ops.image.view_zoom_ratio(ratio=context.space_data.zoom[0] * min(1.0, free / max(1.0, width)))
        bpy.ops.image.view_pan(offset=((region.width - free) / 2 / context.space_data.zoom[0], 0.0))


def _contains(region: Region, x: int, y: int) -> bool:
    return region.x <= x < region.x + region.width and region.y <= y < region.y + region.height


def is_running(context: Context, tool: type[Operator] | None = None) -> bool:
    """Whether a tool runs in a window: that one, or any."""
    names = {tool.__name__} if tool is not None else {each.__name__ for each in _tools(ImageTool)}
    return any(o.bl_idname in names for w in context.window_manager.windows for o in w.modal_operators)


def _tools(base: type[Operator]) -> Iterator[type[Operator]]:
    """The operators that are such tools."""
    for tool in base.__subclasses__():
        yield tool
        yield from _tools(tool)
