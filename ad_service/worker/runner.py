"""A job's bytes in, its result bytes out. The only file that knows both the wire and the core."""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ad_service import __version__
from ad_service.core import labels
from ad_service.core.backbone import loading
from ad_service.core.backbone.checkpoints import CheckpointError
from ad_service.core.backbone.codec import Decoders
from ad_service.core.pipeline import synthesis
from ad_service.core.sampling import samplers
from ad_service.storage import models
from ad_service.worker import protocol
from ad_service.worker.decoder_cache import DecoderCache
from ad_service.worker.engine import Outcome, Read, Step, Steps
from ad_service.worker.image_files import Decoded, Pixels, check_size, decode, encode_png, encode_preview
from blender_addon import wire
from blender_addon.wire import JobRequest, WireError

MOST_RESIDENT = 2
ROOM_FOR_ANOTHER = 0.4
"""Models kept loaded: at most so many, and one only when less than this part of the memory is free."""

LABEL_PICTURES = ("regions", "layout")

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "STATUS_ALLOC_FAILED")
"""What a RuntimeError says when memory is out: the CPU's allocator, Apple's and NVIDIA's drivers, cuBLAS and cuDNN."""

Parameters = Mapping[str, Any]
Pictures = Mapping[str, Pixels]


class Runner:
    """The engine that makes textures. Keeps the models it loaded last, for the next job.

    Only with `allow_paths`, which is for the command line, may a job name its model by a path.
    """

    def __init__(self, data_dir: Path, *, allow_paths: bool = False) -> None:
        self._data_dir = data_dir
        self._allow_paths = allow_paths
        self._device = loading.choose_device()
        loading.make_repeatable(self._device)
        self._notes: tuple[str, ...] = ()
        self._decoders = DecoderCache(data_dir / "decoders")
        self._resident: OrderedDict[tuple[Path, str], loading.Backbone] = OrderedDict()

    def ready(self) -> protocol.Ready:
        """The device, after a real operation on it; raises WireError `device-unavailable`."""
        with core_errors():
            if self._device.type == "cuda":
                torch.cuda.empty_cache()  # so that the free memory is the true one
            total = float(torch.arange(8, dtype=torch.float32, device=self._device).square().sum())
        if total != 140.0:
            raise WireError("device-unavailable", f"{self._device} computes wrongly: {total:g} instead of 140")
        memory_free, memory_total = _memory(self._device)
        return protocol.Ready(self._device.type, device_name(self._device), memory_total, memory_free)

    def run(self, request: JobRequest, read: Read, files: Mapping[str, str] | None = None) -> Steps:
        """Goes through a job. `files` are the names of its pictures where known; the result's PNG tells them."""
        with core_errors():
            yield Step(0.0, "Reading the pictures")
            decoded = {name: _decode(name, read(sha)) for name, sha in request.inputs.items()}
            yield Step(0.0, f"Loading the model {request.parameters['model']}")
            backbone = self._backbone(request.parameters["model"], request.parameters["precision"])
            pictures = {name: picture.pixels for name, picture in decoded.items()}
            picture = yield from self._made(
                lambda: _KINDS[request.kind](backbone, request.parameters, pictures, self._decoders)
            )
            yield Step(1.0, "Writing the picture")
            notes = (
                tuple(note for one in decoded.values() for note in one.notes)
                + backbone.notes
                + picture.notes
                + self._notes
            )
            metrics = {name: float(value) for name, value in picture.metrics.items() if math.isfinite(value)}
            document = _document(request, backbone, metrics, files or {})
            return Outcome({"image": encode_png(picture.image.numpy(), document)}, metrics, notes)

    def _made(self, begin: Callable[[], synthesis.Job]) -> Generator[Step, None, synthesis.Picture]:
        """The picture of a job, begun anew where the device has an operation in no form that repeats itself."""
        try:
            return (yield from _told(begin()))
        except RuntimeError as error:
            if not torch.are_deterministic_algorithms_enabled() or "deterministic" not in str(error):
                raise
            told = _first_line(error)
        torch.use_deterministic_algorithms(False)
        self._notes += (f"On this device the same seed does not give quite the same texture again: {told}",)
        return (yield from _told(begin()))

    def _backbone(self, name: str, precision: str) -> loading.Backbone:
        """The model, loaded if it is not at hand. The ones used longest ago make room for it."""
        model = models.find(name, self._data_dir, allow_paths=self._allow_paths)
        key = (model.path, precision)
        if key not in self._resident:
            free, total = _memory(self._device)
            most = MOST_RESIDENT if free > ROOM_FOR_ANOTHER * total else 1
            while len(self._resident) >= most:
                self._resident.popitem(last=False)
            self._resident[key] = loading.load(
                model.path, model.family, device=self._device.type, precision=precision, name=model.name
            )
        self._resident.move_to_end(key)
        return self._resident[key]


# ---------------------------------------------------------------------------------------------- the kinds of job


def _synthesize(
    backbone: loading.Backbone, parameters: Parameters, pictures: Pictures, decoders: Decoders
) -> synthesis.Job:
    request = _request(parameters, pictures)
    regions, layout, palette = _label_maps(pictures["swatch"], pictures)
    request = replace(request, start=parameters["start"], regions=regions, layout=layout, palette=palette)
    return synthesis.synthesize(backbone, request, decoders)


def _restyle(
    backbone: loading.Backbone, parameters: Parameters, pictures: Pictures, decoders: Decoders
) -> synthesis.Job:
    content = pictures["content"]
    check_size("content", content, wire.MIN_PICTURE_SIDE)
    height, width = (
        parameters[name] or wire.RESTYLE.parameter(name).value.nearest(side)
        for name, side in zip(("height", "width"), content.shape, strict=False)
    )
    request = replace(_request(parameters, pictures), content=_tensor(content), height=height, width=width)
    return synthesis.restyle(backbone, request, decoders)


_KINDS: dict[str, Callable[[loading.Backbone, Parameters, Pictures, Decoders], synthesis.Job]] = {
    "synthesize": _synthesize,
    "restyle": _restyle,
}


def _request(parameters: Parameters, pictures: Pictures) -> synthesis.Request:
    """What all kinds of job ask for."""
    swatch = pictures["swatch"]
    check_size("swatch", swatch, wire.MIN_PICTURE_SIDE)
    return synthesis.Request(
        swatch=_tensor(swatch),
        tile_y="y" in parameters["tile"],
        tile_x="x" in parameters["tile"],
        **{name: parameters[name] for name in ("height", "width", "seed", "scale", "even_light")},
        **{name: parameters[name] for name in ("preset", "detail", "method")},
        **{name: _given(parameters, name) for name in ("strength", "steps", "iterations")},
        **{name: _given(parameters, name) for name in ("learning_rate", "content_weight")},
    )


def _given(parameters: Parameters, name: str) -> Any:
    """A parameter's value, or None where it has the value that means automatic."""
    return next(p for p in wire.COMMON if p.name == name).given(parameters[name])


def _label_maps(swatch: Pixels, pictures: Pictures) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The regions (h, w) at the swatch's size, the layout in their labels, and their colours; none without a layout."""
    if "layout" not in pictures:
        return None, None, None
    regions = labels.snap(pictures["regions"], "regions")
    height, width = regions.labels.shape
    h, w = swatch.shape[:2]
    if abs(height * w - width * h) > max(height * w, width * h) / 50:
        raise WireError(
            "invalid-labels", f"regions is {width}x{height} pixels, which is not the shape of the swatch ({w}x{h})"
        )
    layout = labels.match(pictures["layout"], regions.palette)
    return labels.condense(regions.labels, h, w), layout, regions.palette


# ---------------------------------------------------------------------------------------------- between two worlds


def _decode(name: str, data: bytes) -> Decoded:
    return decode(name, data, labels=name in LABEL_PICTURES)


def _tensor(pixels: Pixels) -> Tensor:
    """(h, w, 3) uint8 to (3, h, w) in [0, 1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255.0


def _told(job: synthesis.Job) -> Generator[Step, None, synthesis.Picture]:
    """The core's steps as the worker's; previews are encoded only when asked for."""
    with closing(job):
        while True:
            try:
                step = next(job)
            except StopIteration as end:
                picture: synthesis.Picture = end.value
                return picture
            yield Step(step.fraction, _sentence(step.message), _encoded(step.preview))


def _encoded(preview: Callable[[], Tensor] | None) -> Callable[[], bytes] | None:
    return None if preview is None else lambda: encode_preview(preview().cpu().numpy())


def _sentence(message: str) -> str:
    return message[:1].upper() + message[1:]


def _document(
    request: JobRequest, backbone: loading.Backbone, metrics: Mapping[str, float], files: Mapping[str, str]
) -> dict[str, Any]:
    """What the result's PNG says of itself: the job, which `run` runs again, and what it was made with."""
    return {
        **request.document(),
        "files": dict(files),
        "made_with": {
            wire.SERVICE_NAME: __version__,
            "torch": str(torch.__version__),
            "device": backbone.device.type,
            "model": backbone.name,
            "model_sha256": backbone.digest,
            "precision": str(backbone.dtype).removeprefix("torch."),
        },
        "metrics": dict(metrics),
    }


@contextmanager
def core_errors() -> Iterator[None]:
    """What the core and torch raise becomes an error of the closed list; what is none of these is a defect."""
    try:
        yield
    except CheckpointError as error:
        raise WireError("model-corrupt", str(error)) from error
    except labels.LabelError as error:
        raise WireError("invalid-labels", str(error)) from error
    except samplers.NotFinite as error:
        raise WireError("nan-output", str(error)) from error
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise WireError("out-of-memory", _first_line(error)) from error
    except RuntimeError as error:
        text = str(error)
        if any(sign in text for sign in OUT_OF_MEMORY):
            raise WireError("out-of-memory", _first_line(error)) from error
        if "CUDA error" in text or "no kernel image" in text:
            raise WireError("device-unavailable", _first_line(error)) from error
        raise


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return {"mps": "Apple GPU", "cpu": f"CPU, {os.cpu_count()} cores"}.get(device.type, device.type)


def _memory(device: torch.device) -> tuple[int, int]:
    """Free and total bytes for the device; (0, 0) where the platform does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")  # sysconf's free pages leave out the page cache
        kilobytes = {name: int(value.split()[0]) for name, value in (line.split(":") for line in text.splitlines())}
        return kilobytes["MemAvailable"] * 1024, kilobytes["MemTotal"] * 1024
    except OSError:
        return 0, 0
