"""Tools in the Image Editor for the swatch: crop it, straighten it, compare it before and after its light is evened.

A tool runs until Enter, Escape or the right mouse button. Meanwhile the view can be moved and zoomed, and the sidebar
and the other editors can be used. What is dragged is in `scene/frames.py`, what is drawn in `ui/overlays.py`.
"""

from collections.abc import Sequence
from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as tr
from bpy.props import FloatProperty, FloatVectorProperty, IntVectorProperty
from bpy.types import Area, Context, Event, Operator, Region, SpaceImageEditor

from ... import wire
from ...scene import comparison, image_editors, image_io, properties, session, swatch, windows
from ...scene.frames import CornersFrame, CropFrame
from ...wire import geometry
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
REACH = 12.0
"""Distance in which a handle is caught, in pixels of the region at an interface scale of 1."""
TOOL_SHARE = 0.5
"""Share of the 3D View's width that a new Image Editor takes."""
PRECISE = 0.1
"""How much slower a drag is while Shift is held."""


class _Overlay:
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


class _ImageTool(Operator):
    """A modal operator in the Image Editor. Subclasses say what the mouse does and what is drawn."""

    operator_name = ""
    ending = "Enter: apply    Esc, Right Mouse: cancel"
    overlay: _Overlay
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
        self.overlay = _Overlay(area)
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
            _fit_view(context)
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
    def draw(overlay: _Overlay, view: overlays.View) -> None:
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


class _FrameTool(_ImageTool):
    """A tool that drags a frame over the swatch."""

    last: tuple[float, float] = (0.0, 0.0)

    def is_shown(self, context: Context) -> bool:
        image = context.scene.distill.image_swatch
        return image is not None and image == context.space_data.image and tuple(image.size) == self.overlay.frame.size

    def is_holding(self) -> bool:
        frame = self.overlay.frame
        return bool(getattr(frame, "handle", "") or getattr(frame, "held", ()))

    def on_mouse(self, context: Context, event: Event) -> None:
        frame = self.overlay.frame
        view = overlays.View(context.region, frame.size)
        point = view.to_picture(event.mouse_region_x, event.mouse_region_y)
        reach = view.pixels(REACH * context.preferences.system.ui_scale)
        if event.type in {"BACK_SPACE", "DEL"}:
            if event.value == "PRESS":
                frame.reset()
        elif event.type == "LEFTMOUSE" and event.value in {"PRESS", "DOUBLE_CLICK"}:
            frame.press(point, reach)
        elif event.type == "LEFTMOUSE":
            frame.release()
        elif event.type == "MOUSEMOVE" and self.is_holding():
            factor = PRECISE if event.shift else 1.0
            frame.move((point[0] - self.last[0]) * factor, (point[1] - self.last[1]) * factor)
        self.overlay.hover = self.hover(point, reach)
        self.overlay.pointer = float(event.mouse_region_x), float(event.mouse_region_y)
        self.last = point

    def hover(self, point: tuple[float, float], reach: float) -> Any:
        """What would be held if the mouse button went down here."""
        raise NotImplementedError


class DISTILL_OT_crop_swatch(_FrameTool):
    """Draw a rectangle over the swatch: only this part is used"""

    bl_idname = "distill.crop_swatch"
    operator_name = "crop_swatch"
    bl_label = "Crop Swatch"
    bl_options = {"REGISTER", "UNDO"}

    box: IntVectorProperty(
        name="Rectangle",
        description="Left, top, width and height in pixels, from the top left corner. Width 0: the whole picture",
        size=4,
        min=0,
        options={"SKIP_SAVE"},
    )

    def execute(self, context: Context) -> Done:
        image = context.scene.distill.image_swatch
        frame = CropFrame(tuple(image.size), geometry.format_crop(*self.box) if self.box[2] else "")
        self.box = self._box_of(frame)
        try:
            wire.SYNTHESIZE.parameter("crop").check(frame.text)
        except wire.WireError as error:
            return fail(self, error)
        swatch.set_crop(context.scene.distill, frame.text)
        return {"FINISHED"}

    def begin(self, context: Context) -> bool:
        settings = context.scene.distill
        crop = properties.parameters_of(settings).crop
        try:
            crop = wire.SYNTHESIZE.parameter("crop").check(crop)
        except wire.WireError:
            crop = ""
        self.overlay.frame = CropFrame(tuple(settings.image_swatch.size), crop)
        return True

    def apply(self, context: Context) -> str:
        self.box = self._box_of(self.overlay.frame)
        swatch.set_crop(context.scene.distill, self.overlay.frame.text)
        return ""

    def hover(self, point: tuple[float, float], reach: float) -> str:
        found = self.overlay.frame.handle_at(point, reach)
        return "" if found in {"new", "move"} else found

    def status(self) -> tuple[str, str]:
        left, top, width, height = self._box_of(self.overlay.frame)
        whole_width, whole_height = self.overlay.frame.size
        text = tr("Crop: {} x {} of {} x {}, left {}, top {}")
        header = text.format(width, height, whole_width, whole_height, left, top)
        return header, tr("Drag: new rectangle, its handles, or move it    Shift: precise    Backspace: whole picture")

    @staticmethod
    def draw(overlay: _Overlay, view: overlays.View) -> None:
        overlays.draw_crop(view, overlay.frame, overlay.hover)

    @staticmethod
    def _box_of(frame: CropFrame) -> tuple[int, int, int, int]:
        left, top, right, bottom = frame.box
        return round(left), round(top), round(right - left), round(bottom - top)


class DISTILL_OT_straighten_swatch(_FrameTool):
    """Drag four corners over a wall or a floor that was photographed from the side, to use it as seen from the front"""

    bl_idname = "distill.straighten_swatch"
    operator_name = "straighten_swatch"
    bl_label = "Straighten Swatch"
    bl_options = {"REGISTER", "UNDO"}

    corners: FloatVectorProperty(
        name="Corners",
        description="Top left, top right, bottom right, bottom left: x and y in pixels from the top left corner",
        size=8,
        min=0.0,
        options={"SKIP_SAVE"},
    )
    lens: FloatProperty(
        name="Lens Distortion",
        description=wire.SYNTHESIZE.parameter("lens").help,
        min=-0.5,
        max=0.5,
        options={"SKIP_SAVE"},
    )

    def execute(self, context: Context) -> Done:
        numbers = list(self.corners)
        a, b, c, d = zip(numbers[0::2], numbers[1::2], strict=True)
        text = geometry.format_corners((a, b, c, d))
        try:
            text = wire.SYNTHESIZE.parameter("corners").check(text)
        except wire.WireError as error:
            return fail(self, error)
        swatch.set_frame(context.scene.distill, lens=self.lens)
        swatch.set_corners(context.scene.distill, text)
        return {"FINISHED"}

    def begin(self, context: Context) -> bool:
        settings = context.scene.distill
        group = properties.parameters_of(settings)
        try:
            corners = wire.SYNTHESIZE.parameter("corners").check(group.corners)
        except wire.WireError:
            corners = ""
        self.before = swatch.frame_of(settings)
        self.overlay.frame = CornersFrame(tuple(settings.image_swatch.size), corners)
        return True

    def apply(self, context: Context) -> str:
        frame, self.lens = self.overlay.frame, properties.parameters_of(context.scene.distill).lens
        if problem := frame.problem(self.lens):
            return str(problem)
        self.corners = [number for corner in frame.corners for number in corner]
        swatch.set_frame(context.scene.distill, lens=self.lens)
        swatch.set_corners(context.scene.distill, frame.text)
        return ""

    def revert(self, context: Context) -> None:
        if context.scene.distill.image_swatch is not None:
            swatch.set_frame(context.scene.distill, lens=self.before["lens"])

    def hover(self, point: tuple[float, float], reach: float) -> tuple[int, ...]:
        found = self.overlay.frame.held_at(point, reach)
        return found if len(found) < 4 else ()

    def status(self) -> tuple[str, str]:
        frame = self.overlay.frame
        lens = properties.parameters_of(bpy.context.scene.distill).lens
        if problem := frame.problem(lens):
            header = tr(problem)
        else:
            found = geometry.straighten(frame.corners, frame.size, lens)
            text = tr("Straighten: {} x {}, lens distortion {:+.2f} (change it in the sidebar)")
            header = text.format(found.width, found.height, lens)
        return header, tr("Drag: a corner, the middle of a side, or all    Shift: precise    Backspace: start again")

    @staticmethod
    def draw(overlay: _Overlay, view: overlays.View) -> None:
        settings = bpy.context.scene.distill
        lens = properties.parameters_of(settings).lens
        overlays.draw_corners(view, overlay.frame, lens, overlay.hover or ())
        overlays.draw_straightened(view, settings.image_swatch, overlay.frame, lens, overlay.pointer)


class DISTILL_OT_compare_swatch(_ImageTool):
    """Show the swatch before and after its light is evened, on the two sides of the mouse pointer"""

    bl_idname = "distill.compare_swatch"
    operator_name = "compare_swatch"
    ending = "Enter, Esc, Right Mouse: back"
    bl_label = "Compare Swatch"

    def show(self, context: Context, area: Area) -> None:
        self.shown = area.spaces.active.image.name if area.spaces.active.image is not None else ""

    def begin(self, context: Context) -> bool:
        self.fits = False
        session.pump()
        try:
            comparison.start(context.scene)
        except wire.WireError as error:
            fail(self, error)
            return False
        return True

    def tick(self, context: Context) -> Done:
        session.pump()
        if (error := comparison.error()) is not None and not comparison.is_pending():
            fail(self, error)
            return self._end(context, {"CANCELLED"})
        comparison.update(context.scene)
        after = comparison.image("after")
        if after is not None and comparison.image("before") is not None and context.space_data.image != after:
            context.space_data.image = after
            context.space_data.ui_mode = "VIEW"
            _fit_view(context)
        self.describe(context)
        return {"PASS_THROUGH"}

    def on_mouse(self, context: Context, event: Event) -> None:
        self.overlay.pointer = float(event.mouse_region_x), float(event.mouse_region_y)

    def apply(self, context: Context) -> str:
        self.revert(context)
        return ""

    def revert(self, context: Context) -> None:
        comparison.stop()
        space = context.space_data
        if space is not None and space.type == "IMAGE_EDITOR":
            space.image = bpy.data.images.get(self.shown) or context.scene.distill.image_swatch
            if space.image is not None and context.region is not None and context.region.type == "WINDOW":
                _fit_view(context)
        comparison.remove()

    def status(self) -> tuple[str, str]:
        light = properties.parameters_of(bpy.context.scene.distill).even_light
        ready = comparison.image("after") is not None and not comparison.is_pending()
        header = tr("Even lighting {:.2f}: before | after").format(light) if ready else tr("Preparing the swatch")
        return header, tr("Mouse: where the picture is split")

    @staticmethod
    def draw(overlay: _Overlay, view: overlays.View) -> None:
        before = comparison.image("before")
        if before is not None and comparison.image("after") is not None:
            overlays.draw_split(view, before, overlay.pointer[0])


class DISTILL_OT_whole_swatch(Operator):
    """Use the whole picture again, neither cropped nor straightened"""

    bl_idname = "distill.whole_swatch"
    bl_label = "Use Whole Picture"
    bl_options = {"REGISTER", "UNDO"}

    def execute(self, context: Context) -> Done:
        settings = context.scene.distill
        if settings.image_swatch is not None:
            swatch.set_crop(settings, "")
        swatch.set_frame(settings, lens=0.0)
        return {"FINISHED"}


TOOLS = (DISTILL_OT_crop_swatch, DISTILL_OT_straighten_swatch, DISTILL_OT_compare_swatch)


def is_running(context: Context, tools: Sequence[type[Operator]] = TOOLS) -> bool:
    """Whether one of the tools runs in a window."""
    names = {tool.__name__ for tool in tools}
    return any(o.bl_idname in names for w in context.window_manager.windows for o in w.modal_operators)


def _window_region(area: Area) -> Region:
    return next(region for region in area.regions if region.type == "WINDOW")


def _is_inside(region: Region, area: Area, event: Event) -> bool:
    """Whether the mouse is over the picture: in the region, and not over the sidebar or a header that lie over it."""
    x, y = event.mouse_x, event.mouse_y
    if not _contains(region, x, y):
        return False
    return not any(_contains(r, x, y) for r in area.regions if r.type != "WINDOW" and min(r.width, r.height) > 1)


def _fit_view(context: Context) -> None:
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


classes = (*TOOLS, DISTILL_OT_whole_swatch)
