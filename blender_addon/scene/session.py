"""The jobs at work: what the thread reports becomes records, pictures and materials, on Blender's main thread.

`desk` is the one place that knows the jobs of this Blender. A timer calls `pump`; scripts and tests call `pump` or
`wait` themselves, since timers do not run in the background. Nothing here keeps a reference to a datablock between
calls: undo and opening another file would end it.
"""

from __future__ import annotations

import json
import time
import traceback
import uuid
from pathlib import Path

import bpy
import bpy.utils.previews
from bpy.app.handlers import persistent
from bpy.types import Image, Material

from .. import wire
from ..link import background
from ..link.records import Record, read_journal, write_journal
from . import image_io, materials, preferences
from .requests import Order

JOB = "distill_job"
"""Property of an image: the job that made it."""
OUTPUT = "distill_output"
"""Property of an image: which of the job's pictures it is (`image`, `normal`, ...)."""
KEPT_JOBS = 200
"""How many jobs a file remembers."""
BUSY = ("PAINT_OT_", "SCULPT_OT_", "TRANSFORM_OT_", "GPENCIL_OT_", "GREASE_PENCIL_OT_", "MESH_OT_", "UV_OT_")
"""Modal operators during which nothing is put into the file: their undo step is not closed yet."""


class Desk:
    """What this Blender knows of the service and of its jobs, whatever file is open."""

    def __init__(self) -> None:
        self.tasks = background.Tasks()
        self.records: dict[str, Record] = {}
        self.arrived: dict[str, background.Ended] = {}
        self.document = ""
        self.status: background.client.Status | None = None
        self.error: wire.WireError | None = None
        self.note = ""
        self.connecting = False
        self._preview_keys: dict[str, str] = {}
        self._previews: bpy.utils.previews.ImagePreviewCollection | None = None

    # ---------------------------------------------------------------------- orders

    def connect(self) -> None:
        """Look for the service, and start it if it is not there."""
        self.connecting, self.error, self.note = True, None, "Looking for the service"
        self.tasks.connect(preferences.place(), may_start=True)

    def order(self, order: Order, material: str) -> Record:
        """Send a job on its way; `material` is the name of the one that its result goes into, if any."""
        record = Record(str(uuid.uuid4()), order.kind, order.title, order.parameters, self.document, material)
        record.message = "Sending"
        self.records[record.job] = record
        self.tasks.submit(
            record.job, order.kind, order.parameters, order.pictures, preferences.place(), preferences.may_start()
        )
        return record

    def again(self, record: Record) -> Record:
        """Ask once more for a job that failed, or look again for one that the service may still have."""
        if record.code == "service-unreachable" and record.request:
            return self.follow(record)
        del self.records[record.job]
        new = Record(str(uuid.uuid4()), record.kind, record.title, record.parameters, self.document, record.material)
        new.request = record.request
        self.records[new.job] = new
        self.tasks.resubmit(new.job, new.request, preferences.place())
        return new

    def follow(self, record: Record) -> Record:
        """Hear of a job again that was submitted before, and fetch its result."""
        record.state, record.code, record.sentence, record.message = "queued", "", "", "Looking for the result"
        record.landed = False
        self.tasks.watch(record.job, preferences.place())
        return record

    def cancel(self, record: Record) -> None:
        record.state, record.message = "canceling", "Canceling"
        self.tasks.cancel(record.job)

    def dismiss(self, record: Record) -> None:
        """Take a job that has ended off the list."""
        self.records.pop(record.job, None)
        self.arrived.pop(record.job, None)
        self.keep_journal()

    def complain(self, error: wire.WireError) -> None:
        """Show an error in the panel."""
        self.error = error

    # ---------------------------------------------------------------------- what the panel asks

    def of_this_file(self) -> list[Record]:
        """The jobs of the open file, newest first."""
        return [r for r in reversed(self.records.values()) if r.document == self.document]

    def of_other_files(self) -> list[Record]:
        """Jobs of files that were closed meanwhile: still at work, or waiting to be brought in."""
        return [r for r in self.records.values() if r.document != self.document]

    def busy(self) -> bool:
        """Whether news of this file's jobs or of the service is to come."""
        return self.connecting or any(r.active or r.job in self.arrived for r in self.of_this_file())

    def preview_icon(self, job: str) -> int:
        """The icon of a job's newest preview, or 0."""
        key = self._preview_keys.get(job)
        return self._previews[key].icon_id if self._previews is not None and key else 0

    # ---------------------------------------------------------------------- news

    def hear(self, news: background.News) -> None:
        """Take in one piece of news."""
        match news:
            case background.Found(status):
                self.status, self.note, self.connecting = status, "", False
                if self.error is not None and self.error.code in background.SERVICE_ERRORS:
                    self.error = None
            case background.Starting(message):
                self.note = message
            case background.Lost(error):
                self.status, self.error, self.note, self.connecting = None, error, "", False
            case _ if news.job in self.records:
                self._hear_of(self.records[news.job], news)

    def _hear_of(self, record: Record, news: background.News) -> None:
        match news:
            case background.Submitted(_, request):
                record.request = request
                self.keep_journal()
            case background.Moved(_, status):
                if record.state != "canceling" or status.state != "queued":
                    record.state = status.state
                record.fraction, record.message, record.seconds_left = (
                    status.progress,
                    status.message,
                    status.seconds_left,
                )
            case background.Waiting(_, message):
                record.message, record.seconds_left = message, None
            case background.Preview(_, png):
                self._show_preview(record.job, png)
            case background.Ended():
                self._end(record, news)

    def _end(self, record: Record, news: background.Ended) -> None:
        record.state, record.fraction, record.seconds_left = news.state, 1.0, None
        if news.error is not None:
            record.fail(news.error)
        if news.state == "succeeded" and news.status is not None and news.status.result is not None:
            result = news.status.result
            record.metrics, record.notes, record.seconds = dict(result.metrics), result.notes, result.seconds
            self.arrived[record.job] = news
        self.keep_journal()

    def _show_preview(self, job: str, png: bytes) -> None:
        if bpy.app.background:
            return
        if self._previews is None:
            self._previews = bpy.utils.previews.new()
        if len(self._previews) > 200:  # they cannot be removed one by one
            self._previews.clear()
            self._preview_keys.clear()
        key = f"{job} {len(self._previews)}"
        path = Path(bpy.app.tempdir) / f"distill {key}.png"
        path.write_bytes(png)  # read when it is drawn first; Blender removes the folder when it ends
        self._previews.load(key, str(path), "IMAGE")
        self._preview_keys[job] = key

    # ---------------------------------------------------------------------- results

    def land_arrived(self) -> int:
        """Put the results of this file that have arrived into it; returns how many."""
        landed = 0
        for job in list(self.arrived):
            record = self.records.get(job)
            if record is None:
                del self.arrived[job]
            elif record.document == self.document and not _in_the_middle_of_something():
                land(record, self.arrived.pop(job))
                landed += 1
        if landed:
            self.keep_journal()
        return landed

    # ---------------------------------------------------------------------- files

    def keep_journal(self) -> None:
        """Write the file's jobs into its scenes. Undo takes that back, saving writes it again."""
        text = write_journal(self.document, reversed(self.of_this_file()[:KEPT_JOBS]))
        for scene in bpy.data.scenes:
            if scene.library is None:
                scene.distill.journal = text

    def adopt_file(self) -> None:
        """Take up the jobs of the file that was opened; jobs of the former file go on."""
        document, kept = "", []
        for scene in bpy.data.scenes:
            document, kept = read_journal(scene.distill.journal)
            if document:
                break
        self.document = document or str(uuid.uuid4())
        here = {r.job: r for r in self.records.values() if r.active or r.job in self.arrived}
        self.records = {r.job: r for r in kept} | here
        for record in kept:
            if record.job not in here and (record.active or (record.state == "succeeded" and not record.landed)):
                self.follow(record)
        self.error = None

    def close(self) -> None:
        """End the thread; what runs on the service goes on."""
        self.tasks.close()
        if self._previews is not None:
            bpy.utils.previews.remove(self._previews)
            self._previews = None


desk = Desk()


# ---------------------------------------------------------------------------------------------- pumping


def pump() -> int:
    """Take in what has happened since the last call; returns how many pieces of news there were. Never waits."""
    if not desk.document:
        desk.adopt_file()
    news = desk.tasks.pump()
    for piece in news:
        desk.hear(piece)
    if desk.land_arrived() or news:
        _redraw()
    return len(news)


def wait(timeout: float = 600.0) -> bool:
    """Pump until nothing of this file is at work any more; says whether that came true in time. For scripts."""
    end = time.monotonic() + timeout
    while True:
        pump()
        if not desk.busy():
            return True
        if time.monotonic() > end:
            return False
        time.sleep(0.05)


def _redraw() -> None:
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type in {"VIEW_3D", "IMAGE_EDITOR"}:
                area.tag_redraw()


def _in_the_middle_of_something() -> bool:
    """Whether a stroke or a transform is going on in a window."""
    return any(
        operator.bl_idname.startswith(BUSY)
        for window in bpy.context.window_manager.windows
        for operator in window.modal_operators
    )


# ---------------------------------------------------------------------------------------------- landing


def land(record: Record, ended: background.Ended) -> dict[str, Image]:
    """The result as new packed images, in the material beside what was there, as one undo step."""
    images = {}
    for output, png in ended.pictures.items():
        suffix = "" if output == "image" else f" {output}"
        image = image_io.new_image(f"{record.title}{suffix}", png, data=output in materials.DATA_MAPS)
        image.use_fake_user = True  # a file does not keep an image that nothing in it uses
        _inscribe(image, record, output)
        images[output] = image
    record.landed = True
    bpy.context.scene.distill.last_result = images["image"].name
    material = bpy.data.materials.get(record.material) if record.material else None
    if material is not None:
        try:
            materials.add_result(material, record.job, record.title, images)
            if bpy.context.scene.distill.use_at_once:
                materials.use(material, record.job)
        except wire.WireError as error:
            desk.complain(error)
    push_undo(f"Distill {record.title}")
    return images


def _inscribe(image: Image, record: Record, output: str) -> None:
    """Write on an image how it was made, as custom properties that the artist can read."""
    image[JOB], image[OUTPUT] = record.job, output
    image["distill_kind"], image["distill_seed"] = record.kind, record.seed
    image["distill_parameters"] = json.dumps(dict(record.parameters))
    image["distill_request"] = json.dumps(dict(record.request))
    for name, value in record.metrics.items():
        image[f"distill_{name}"] = float(value)


def image_of(job: str, output: str = "image") -> Image | None:
    """The image of a job's result, whatever its name is by now."""
    return next((i for i in bpy.data.images if i.get(JOB) == job and i.get(OUTPUT) == output), None)


def images_of(job: str) -> dict[str, Image]:
    """All maps of a job's result that are in the file, the base colour first."""
    found = {i[OUTPUT]: i for i in bpy.data.images if i.get(JOB) == job and OUTPUT in i}
    return dict(sorted(found.items(), key=lambda pair: pair[0] != "image"))


def active_material() -> Material | None:
    """The active material of the active object."""
    thing = bpy.context.view_layer.objects.active if bpy.context.view_layer else None
    return thing.active_material if thing else None


def push_undo(message: str) -> None:
    """Close an undo step. Without it, what a timer made would vanish with the artist's next undo."""
    windows = bpy.context.window_manager.windows
    if bpy.context.window is None and len(windows):
        with bpy.context.temp_override(window=windows[0]):
            bpy.ops.ed.undo_push(message=message)
    else:
        bpy.ops.ed.undo_push(message=message)


# ---------------------------------------------------------------------------------------------- Blender's calls


def _tick() -> float:
    try:
        pump()
    except Exception as error:  # a timer that raises is never called again, and no result would arrive any more
        traceback.print_exc()
        desk.complain(wire.WireError("internal", f"The add-on stumbled: {type(error).__name__}: {error}"))
    return 0.2 if desk.busy() or desk.of_other_files() else 1.0


@persistent
def _on_load(*_args: object) -> None:
    desk.adopt_file()


@persistent
def _on_save(*_args: object) -> None:
    """Pack what was painted on images of ours, which would be lost otherwise, and write the journal."""
    if not desk.document:
        desk.adopt_file()
    ours = {getattr(s.distill, name) for s in bpy.data.scenes for name in ("image_regions", "image_layout")}
    for image in bpy.data.images:
        if image.is_dirty and image.library is None and (image in ours or JOB in image):
            image.pack()
    desk.keep_journal()


def register() -> None:
    global desk
    desk = Desk()
    bpy.app.handlers.load_post.append(_on_load)
    bpy.app.handlers.save_pre.append(_on_save)
    if not bpy.app.background:
        bpy.app.timers.register(_tick, first_interval=0.5, persistent=True)


def unregister() -> None:
    if bpy.app.timers.is_registered(_tick):
        bpy.app.timers.unregister(_tick)
    bpy.app.handlers.save_pre.remove(_on_save)
    bpy.app.handlers.load_post.remove(_on_load)
    desk.close()
