"""Small engines, each with one behavior, chosen with `serve --engine tests.support.engines:NAME`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ad_service.worker import protocol
from ad_service.worker.engine import Outcome, Read, Step, Steps
from ad_service.worker.worker import PREVIEW_EVERY, Worker
from blender_addon.wire import JobRequest, WireError
from tests.support.faults import at_points

Run = Callable[[JobRequest, Read, Path], Steps]


class Fixture:
    """An engine made of one generator."""

    def __init__(self, run: Run, data_dir: Path) -> None:
        self._run = run
        self._data_dir = data_dir

    def ready(self) -> protocol.Ready:
        return protocol.Ready("cpu", "a fixture", 2**30, 2**29)

    def run(self, request: JobRequest, read: Read) -> Steps:
        return self._run(request, read, self._data_dir)

    def release(self) -> None:
        (self._data_dir / "released").touch()


def fixture(run: Run) -> Callable[[Path], Fixture]:
    return lambda data_dir: Fixture(run, data_dir)


@fixture
def echoes(request: JobRequest, read: Read, _: Path) -> Steps:
    """Returns the swatch after `steps` steps of 10 ms."""
    swatch = read(request.inputs["swatch"])
    steps = request.parameters["steps"] or 3
    for i in range(steps):
        yield Step(i / steps, f"Step {i + 1} of {steps}", lambda: b"preview of " + swatch[:16])
        time.sleep(0.01)
    return Outcome({"image": swatch}, {"seam_x": 1.0}, (f"seed {request.parameters['seed']}",))


@fixture
def shows(request: JobRequest, read: Read, _: Path) -> Steps:
    """Has a different preview at each of its `steps` steps of 10 ms."""
    steps = request.parameters["steps"]
    for i in range(steps):
        yield Step(i / steps, f"Step {i + 1} of {steps}", lambda i=i: f"preview {i}".encode(), "denoise")
        time.sleep(0.01)
    return Outcome({"image": read(request.inputs["swatch"])})


@fixture
def sleeps(request: JobRequest, read: Read, _: Path) -> Steps:
    """Runs for a minute in short steps, and can be canceled at each."""
    for i in range(1200):
        yield Step(i / 1200, "Sleeping")
        time.sleep(0.05)
    return Outcome({"image": b""})


@fixture
def phases(request: JobRequest, read: Read, _: Path) -> Steps:
    """Has two phases of a second, shorter ones for 256 pixels, and a minute more in the second one for 1024 pixels."""
    for phase, message in (("start", "Starting"), ("denoise", "Step 1 of 1")):
        for i in range(20 if request.parameters["width"] != 256 else 2):
            yield Step(i / 40, message, phase=phase)
            time.sleep(0.05)
    for _ in range(1200 if request.parameters["width"] == 1024 else 0):
        yield Step(0.9, "Waiting", phase="denoise")
        time.sleep(0.05)
    return Outcome({"image": read(request.inputs["swatch"])})


@fixture
def is_deaf(request: JobRequest, read: Read, _: Path) -> Steps:
    """A step that never ends, in a process that ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield Step(0.0, "Busy")
    while True:
        time.sleep(0.1)


@fixture
def is_busy(request: JobRequest, read: Read, _: Path) -> Steps:
    """A step that never ends."""
    yield Step(0.0, "Busy")
    while True:
        time.sleep(0.1)


@fixture
def dies(request: JobRequest, read: Read, _: Path) -> Steps:
    """Ends its process, every time."""
    yield Step(0.1, "About to die")
    os._exit(3)


@fixture
def dies_once(request: JobRequest, read: Read, data_dir: Path) -> Steps:
    """Kills its process at the first try and succeeds at the second."""
    yield Step(0.1, "Trying")
    mark = data_dir / "died"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome({"image": read(request.inputs["swatch"])})


@fixture
def raises(request: JobRequest, read: Read, _: Path) -> Steps:
    """Divides by zero for the seed 0."""
    yield Step(0.5, "Dividing")
    return Outcome({"image": bytes(1 // request.parameters["seed"])})


@fixture
def refuses(request: JobRequest, read: Read, _: Path) -> Steps:
    """Rejects the picture."""
    yield Step(0.0, "Looking")
    raise WireError("invalid-image", "swatch is 3x3 pixels; it must be at least 32x32")


@fixture
def babbles(request: JobRequest, read: Read, _: Path) -> Steps:
    """Prints on stdout, as libraries do, and reports progress that decreases and exceeds 1."""
    print("Loading pipeline components...", flush=True)
    os.write(1, b'{"event": "succeeded"}\n')
    print("not json", file=sys.stderr)
    for fraction in (0.5, 0.2, 7.0):
        yield Step(fraction, f"At {fraction}")
    return Outcome({"image": b"image"})


@fixture
def lies(request: JobRequest, read: Read, _: Path) -> Steps:
    """Returns an outcome without an image; the seed chooses which."""
    yield Step(0.9, "Almost there")
    return (None, Outcome({}), Outcome({"image": "a path"}))[request.parameters["seed"]]  # type: ignore[dict-item, return-value]


@fixture
def leaks(request: JobRequest, read: Read, _: Path) -> Steps:
    """Starts a thread that never ends, as some libraries do."""
    yield Step(0.5, "Starting a thread")
    threading.Thread(target=threading.Event().wait, daemon=False).start()
    return Outcome({"image": read(request.inputs["swatch"])})


def dies_at_each_point(data_dir: Path) -> Fixture:
    """Kills its process at the first point of the first job, a stride later in the next one, and so on, once in a job.

    Points are before and after each event that is sent and each change of a file. The file `stride` has the stride, and
    `deaths` a line for each death, the sha256 of the job's swatch.
    """
    file, stride = data_dir / "deaths", int((data_dir / "stride").read_text())
    points, swatch = 0, ""

    def deaths() -> list[str]:
        return file.read_text().split() if file.exists() else []

    def hit() -> None:
        nonlocal points
        points += 1
        if swatch and swatch not in (earlier := deaths()) and points == len(earlier) * stride + 1:
            with file.open("a") as added:
                added.write(f"{swatch}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def run(request: JobRequest, read: Read, _: Path) -> Steps:
        nonlocal points, swatch
        points, swatch = 0, request.inputs["swatch"]
        data = read(swatch)
        for i in range(3):
            yield Step(i / 3, f"Step {i + 1} of 3", lambda i=i: b"preview %d of " % i + data, f"phase {i}")  # type: ignore[misc]
            time.sleep(PREVIEW_EVERY / 2)
        return Outcome({"image": data + b" again"})

    at_points(hit)
    send = Worker._send

    def send_between_points(worker: Worker, event: protocol.Event) -> None:
        hit()
        send(worker, event)
        hit()

    Worker._send = send_between_points  # type: ignore[method-assign]
    return Fixture(run, data_dir)


def names_its_gpu(data_dir: Path) -> Fixture:
    """Sleeps, on a device with the name of the GPU that the process sees."""
    made = sleeps(data_dir)
    made.ready = lambda: protocol.Ready("cuda", os.environ["CUDA_VISIBLE_DEVICES"], 2**30, 2**29)  # type: ignore[method-assign]
    return made


def never_starts(data_dir: Path) -> Fixture:
    """Cannot be created."""
    raise RuntimeError("no kernel image is available for execution on the device")
