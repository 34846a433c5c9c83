"""Tools in the Image Editor for the swatch: crop it, straighten it, compare it before and after its light is evened.

What is dragged is in `scene/frames.py`, what is drawn in `ui/overlays.py`.
"""

from typing import Any

import bpy
from bpy.app.translations import pgettext_iface as tr
from bpy.props import FloatProperty, FloatVectorProperty, IntVectorProperty
from bpy.types import Area, Context, Event, Operator

from ... import wire
from ...scene import comparison, properties, session, swatch
from ...scene.frames import CornersFrame, CropFrame
from ...wire import geometry
from .. import overlays
from .image_tool import ImageTool, ToolOverlay, fit_view
from .reports import Done, fail

REACH = 12.0
"""Distance in which a handle is caught, in pixels of the region at an interface scale of 1."""
PRECISE = 0.1
"""How much slower a drag is while Shift is held."""


class _FrameTool(ImageTool):
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
    def draw(overlay: ToolOverlay, view: overlays.View) -> None:
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
    def draw(overlay: ToolOverlay, view: overlays.View) -> None:
        settings = bpy.context.scene.distill
        lens = properties.parameters_of(settings).lens
        overlays.draw_corners(view, overlay.frame, lens, overlay.hover or ())
        overlays.draw_straightened(view, settings.image_swatch, overlay.frame, lens, overlay.pointer)


class DISTILL_OT_compare_swatch(ImageTool):
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
            fit_view(context)
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
                fit_view(context)
        comparison.remove()

    def status(self) -> tuple[str, str]:
        light = properties.parameters_of(bpy.context.scene.distill).even_light
        ready = comparison.image("after") is not None and not comparison.is_pending()
        header = tr("Even lighting {:.2f}: before | after").format(light) if ready else tr("Preparing the swatch")
        return header, tr("Mouse: where the picture is split")

    @staticmethod
    def draw(overlay: ToolOverlay, view: overlays.View) -> None:
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


classes = (
    DISTILL_OT_crop_swatch,
    DISTILL_OT_straighten_swatch,
    DISTILL_OT_compare_swatch,
    DISTILL_OT_whole_swatch,
)
