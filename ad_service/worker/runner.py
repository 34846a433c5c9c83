"""The engine that makes textures. The only file that knows both the contract and the core."""

from __future__ import annotations

import gc
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ad_service import __version__
from ad_service.core import (
    Channel,
    GenerateRequest,
    LabelMaps,
    Model,
    RestyleRequest,
    Result,
    SynthesizeRequest,
    from_uint8,
    labels,
    to_uint8,
)
from ad_service.core import Step as CoreStep
from ad_service.core.backbone import devices, loading, memory
from ad_service.core.backbone.checkpoints import CheckpointError, has_text
from ad_service.core.backbone.codec import Decoders
from ad_service.core.materials.estimate import load_network
from ad_service.core.materials.estimate_network import MapsNetwork
from ad_service.core.pictures import parts
from ad_service.core.pipeline import exemplar
from ad_service.core.pipeline.edit_canvas import NothingToFillFrom
from ad_service.core.pipeline.edits import extend, make_tileable, relayout, repaint
from ad_service.core.pipeline.generate import NoText, generate
from ad_service.core.pipeline.options import PipelineOptions
from ad_service.core.pipeline.request import Job
from ad_service.core.pipeline.restyle import restyle
from ad_service.core.pipeline.synthesize import synthesize
from ad_service.core.sampling import samplers
from ad_service.core.steps import translate
from ad_service.maps import WEIGHTS as MAPS_WEIGHTS
from ad_service.storage import models
from ad_service.worker import edits, protocol
from ad_service.worker.decoder_cache import DecoderCache
from ad_service.worker.engine import Outcome, Read, Step, Steps
from ad_service.worker.estimates import check_picture, estimated
from ad_service.worker.image_files import Decoded, DeepPixels, Pixels, check_size, decode, encode_png, encode_preview
from ad_service.worker.inputs import enlarged_side, picture_notes, result_size, size_of_content, swatch_notes
from ad_service.worker.maps import MaterialMap, maps_of, to_floats
from ad_service.worker.swatch import PreparedSwatch, prepare_swatch
from blender_addon import wire
from blender_addon.wire import JobRequest, WireError
from blender_addon.wire.colors import PALETTE, region_of_color

MAX_LOADED = 2
FREE_FOR_ANOTHER = 0.4
"""Most models kept loaded, and the part of the memory that must be free for one more where its need is unknown."""

COMMON_FIELDS = (
    *("seed", "even_light", "preset", "detail"),
    *("strength", "steps", "iterations", "learning_rate", "content_weight"),
)
"""Parameters that are fields of every request under the same name."""


class Runner:
    """Makes textures on the best device of this machine and keeps the models that it loaded last.

    A job may name its model by a path only with `allow_paths`, which is for the command line.
    """

    def __init__(self, data_dir: Path, *, allow_paths: bool = False) -> None:
        self._data_dir = data_dir
        self._allow_paths = allow_paths
        self._device = devices.choose_device()
        devices.make_repeatable(self._device)
        self._not_repeatable: str | None = None
        self._decoders = DecoderCache(data_dir / "decoders")
        self._loaded: OrderedDict[tuple[Path, str], Model] = OrderedDict()
        self._estimator: MapsNetwork | None = None

    def ready(self) -> protocol.Ready:
        """The device, after a real operation on it; raises WireError `device-unavailable`."""
        with core_errors():
            devices.free_cached_memory(self._device)  # so that the free memory is the true one
            total = float(torch.arange(8, dtype=torch.float32, device=self._device).square().sum())
        if total != 140.0:
            raise WireError("device-unavailable", f"{self._device} computes {total:g} instead of 140")
        memory_free, memory_total = _memory(self._device)
        return protocol.Ready(self._device.type, device_name(self._device), memory_total, memory_free)

    def run(self, request: JobRequest, read: Read, files: Mapping[str, str] | None = None) -> Steps:
        """Run a job. `files` has the file names of its pictures where known, for the result's PNG."""
        kind = wire.KINDS[request.kind]
        with core_errors():
            decoded: dict[str, Decoded] = {}
            for name, sha in request.inputs.items():
                if wire.map_name(name) is None:
                    yield Step(0.0, f"Reading the {name}", phase="read")
                    decoded[name] = _decode(kind.picture(name), read(sha))
            if any(wire.map_name(name) for name in request.inputs):
                yield Step(0.0, "Reading the maps", phase="read")
            maps, map_notes = maps_of(request, decoded, read, files or {})
            if request.kind == wire.SUGGEST_REGIONS.name:
                yield Step(0.1, "Dividing the swatch", phase="start")
                swatch, made = None, _Made(_parts(decoded["swatch"].pixels, request.parameters["parts"]))
            elif request.kind == wire.ESTIMATE.name:
                yield Step(0.1, "Estimating the maps", phase="start")
                swatch, made = None, self._estimate(decoded["picture"].pixels, maps, request.parameters)
            elif request.kind in wire.EDIT_KINDS:
                swatch, made = None, (yield from self._edited(request, decoded, maps))
            else:
                swatch, made = yield from self._from_prepared(request, decoded, maps)
                if request.parameters.get("estimate_maps") == "missing":
                    yield Step(1.0, "Estimating the maps", phase="write")
                    made = self._with_estimates(made, request.parameters)
            yield Step(1.0, "Writing the picture", phase="write")
            metrics = {name: float(value) for name, value in made.metrics.items() if math.isfinite(value)}
            notes = picture_notes(decoded, request.parameters) + map_notes
            if swatch is not None:
                metrics["scale"] = swatch.scale
                if swatch.pixels_per_meter is not None:
                    metrics["pixels_per_meter"] = swatch.pixels_per_meter
                notes += swatch_notes(swatch)
            document = _document(request, made, swatch, metrics, files or {})
            resolution = None if swatch is None else swatch.pixels_per_meter
            pictures = {"image": encode_png(made.pixels, document, resolution)}
            for name, pixels in made.maps.items():
                yield Step(1.0, f"Writing the map {name}", phase="write")
                pictures[wire.map_input(name)] = encode_png(pixels, document, resolution)
            return Outcome(pictures, metrics, notes + made.notes, made.origins)

    def _from_prepared(
        self, request: JobRequest, decoded: Mapping[str, Decoded], maps: Mapping[str, MaterialMap]
    ) -> Generator[Step, None, tuple[PreparedSwatch | None, _Made]]:
        """Fits the swatch, if there is one, to the result and makes the picture from it."""
        size = result_size(request.parameters, size_of_content(decoded))
        if "swatch" not in decoded:
            return None, (yield from self._texture(request, size, None, decoded))
        yield Step(0.0, "Measuring the swatch", phase="fit")
        regions = decoded["regions"].pixels if "regions" in decoded else None
        enlarged_to = enlarged_side(request.parameters, self._data_dir, self._allow_paths)
        swatch = prepare_swatch(
            decoded["swatch"], request.parameters, size, regions, maps=maps, enlarged_to=enlarged_to
        )
        if request.kind == wire.PREPARE.name:
            yield Step(0.5, "Preparing the swatch", phase="prepare")
            return swatch, _Made(_lit_and_scaled(swatch, request.parameters["even_light"]))
        return swatch, (yield from self._texture(request, size, swatch, decoded))

    def _texture(
        self, request: JobRequest, size: tuple[int, int], swatch: PreparedSwatch | None, decoded: Mapping[str, Decoded]
    ) -> Generator[Step, None, _Made]:
        """Loads the model and runs the recipe of the job kind."""
        parameters = request.parameters
        if request.kind == wire.GENERATE.name:
            self._check_words(parameters, has_layout="layout" in decoded)
        inputs = _Inputs(parameters, size, swatch, {name: picture.pixels for name, picture in decoded.items()})
        recipe = RECIPES[request.kind]
        return (yield from self._made(parameters, lambda model: recipe(model, inputs, self._decoders)))

    def _edited(
        self, request: JobRequest, decoded: Mapping[str, Decoded], maps: Mapping[str, MaterialMap]
    ) -> Generator[Step, None, _Made]:
        """Loads the model and runs the recipe of an edit; a relayout prepares its swatch as a synthesis does."""
        parameters = request.parameters
        channels = {name: _channel(map) for name, map in maps.items()}
        if request.kind == wire.RELAYOUT.name:
            yield Step(0.0, "Measuring the swatch", phase="fit")
            size = decoded["picture"].pixels.shape[1::-1]
            swatch = prepare_swatch(decoded["swatch"], parameters, size, decoded["regions"].pixels)
            inputs = _Inputs(parameters, size, swatch, {name: picture.pixels for name, picture in decoded.items()})
            synthesis = SynthesizeRequest(**_common(inputs), start=parameters["start"], maps=_label_maps(inputs))
            edit, notes = edits.relayout_request(parameters, decoded, channels, synthesis)
        else:
            edit, notes = edits.REQUESTS[request.kind](parameters, decoded, channels)
        recipe = EDITS[request.kind]
        made = yield from self._made(parameters, lambda model: recipe(model, edit, self._decoders))
        return replace(made, notes=notes + made.notes)

    def _made(self, parameters: Mapping[str, Any], begin: Callable[[Model], Job]) -> Generator[Step, None, _Made]:
        """Loads the model and runs a recipe: its result, what it was made with, and where its maps come from."""
        yield Step(0.0, f"Loading the model {parameters['model']}", phase="load")
        model, result, notes = yield from self._with_room(parameters["model"], parameters["precision"], begin)
        of_device = notes if self._not_repeatable is None else (*notes, self._not_repeatable)
        made_with = {
            "torch": str(torch.__version__),
            "device": model.device.type,
            "model": model.name,
            "model_sha256": model.digest,
            "precision": str(model.dtype).removeprefix("torch."),
        }
        followed = {name: picture.numpy() for name, picture in result.channels.items() if name != "color"}
        return _Made(
            result.color.numpy(),
            result.metrics,
            model.notes + result.notes + of_device,
            made_with,
            followed,
            dict.fromkeys(followed, "followed"),
        )

    def _estimate(self, picture: Pixels, maps: Mapping[str, MaterialMap], parameters: Mapping[str, Any]) -> _Made:
        """The maps of a picture: given ones as they are, the others estimated. The image is the color without shade."""
        notes = check_picture("picture", picture)
        given = {name: map.pixels for name, map in maps.items()}
        color, guessed = estimated(
            self._maps_network(), picture, parameters["tile"], parameters["normal_strength"], given
        )
        origins: dict[str, wire.Origin] = {**dict.fromkeys(given, "given"), **dict.fromkeys(guessed, "estimated")}
        return _Made(color, notes=notes, maps={**given, **guessed}, origins=origins)

    def _with_estimates(self, made: _Made, parameters: Mapping[str, Any]) -> _Made:
        """A result with the maps that nobody gave, estimated from its color."""
        _, guessed = estimated(
            self._maps_network(), made.pixels, parameters["tile"], parameters["normal_strength"], made.maps
        )
        return replace(
            made, maps={**made.maps, **guessed}, origins={**made.origins, **dict.fromkeys(guessed, "estimated")}
        )

    def _maps_network(self) -> MapsNetwork:
        """The network that estimates maps, loaded if it is not yet; always on the CPU, where it takes seconds."""
        if self._estimator is None:
            self._estimator = load_network(MAPS_WEIGHTS)
        return self._estimator

    def _check_words(self, parameters: Mapping[str, Any], *, has_layout: bool) -> None:
        """Raises WireError, before a model is loaded, for a model without text or prompts that do not fit a layout."""
        found = models.find(parameters["model"], self._data_dir, allow_paths=self._allow_paths)
        if not has_text(found.family):
            raise WireError(
                "invalid-parameter",
                f"the model {found.name} reads no prompts; choose a Stable Diffusion model",
                parameter="model",
            )
        prompts = _region_prompts(parameters)
        if has_layout != bool(prompts) or len(prompts) > len(PALETTE) or not all(prompts):
            raise WireError(
                "invalid-parameter",
                f"region_prompts is {parameters['region_prompts']!r:.200}; a layout needs one prompt for each of its "
                f"colors, at most {len(PALETTE)}, separated by |, and without a layout there are none",
                parameter="region_prompts",
            )

    def release(self) -> None:
        """Frees the loaded models and their memory on the device."""
        self._loaded.clear()
        self._estimator = None
        gc.collect()
        devices.free_cached_memory(self._device)

    def _with_room(
        self, name: str, precision: str, begin: Callable[[Model], Job]
    ) -> Generator[Step, None, tuple[Model, Result, tuple[str, ...]]]:
        """Runs a recipe; again in fp32 after NaN, and again without the other models if memory runs out.

        Returns the model, the result, and notes on the second attempt.
        """
        first, notes = self._model(name, precision), tuple[str, ...]()
        try:
            return first, (yield from self._repeatably(partial(begin, first))), ()
        except samplers.NotFinite:
            if first.dtype == torch.float32:
                raise
            format = str(first.dtype).removeprefix("torch.")
            notes = (f"In {format} the model's output contained NaN or infinity; the texture was made in fp32",)
            precision = "fp32"
        except (RuntimeError, MemoryError) as error:
            if not devices.is_out_of_memory(error) or len(self._loaded) < 2:
                raise
            notes = ("Memory ran out with two models loaded; the other one was unloaded",)
        del first
        self.release()
        second = self._model(name, precision)
        return second, (yield from self._repeatably(partial(begin, second))), notes

    def _repeatably(self, begin: Callable[[], Job]) -> Generator[Step, None, Result]:
        """Retries without deterministic algorithms if an operation has no deterministic kernel on this device."""
        try:
            return (yield from translate(begin(), _step_of))
        except RuntimeError as error:
            if not torch.are_deterministic_algorithms_enabled() or "deterministic" not in str(error):
                raise
            reason = _first_line(error)
        torch.use_deterministic_algorithms(False)
        self._not_repeatable = f"On this device the same seed gives a slightly different texture each time: {reason}"
        return (yield from translate(begin(), _step_of))

    def _model(self, name: str, precision: str) -> Model:
        """The model, loaded if it is not yet. Those used longest ago make room for it and for its job."""
        found = models.find(name, self._data_dir, allow_paths=self._allow_paths)
        key = (found.path, precision)
        if key not in self._loaded:
            itemsize = devices.choose_precision(precision, self._device, found.family).itemsize
            planned = memory.job_memory(found.family, itemsize, memory.WINDOWS.get(found.family, 0))
            need = FREE_FOR_ANOTHER * _memory(self._device)[1] if planned is None else planned.comfortable
            while self._loaded and (len(self._loaded) >= MAX_LOADED or _memory(self._device)[0] < need):
                self._loaded.popitem(last=False)
                gc.collect()
                devices.free_cached_memory(self._device)
            self._loaded[key] = loading.load(
                found.path, found.family, device=self._device.type, precision=precision, name=found.name
            )
        self._loaded.move_to_end(key)
        return self._loaded[key]


# ---------------------------------------------------------------------------------------------- job kinds


@dataclass(frozen=True)
class _Inputs:
    """What a job is made from: its parameters, the size (width, height) of its result, and its pictures."""

    parameters: Mapping[str, Any]
    size: tuple[int, int]
    swatch: PreparedSwatch | None
    pictures: Mapping[str, Pixels]


@dataclass(frozen=True)
class _Made:
    """The pixels (h, w, 3) of a result, its metrics and notes, what it was made with, its maps and their origins."""

    pixels: Pixels
    metrics: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    made_with: Mapping[str, Any] = field(default_factory=dict)
    maps: Mapping[str, DeepPixels] = field(default_factory=dict)
    origins: Mapping[str, wire.Origin] = field(default_factory=dict)


def _synthesize(model: Model, inputs: _Inputs, decoders: Decoders) -> Job:
    request = SynthesizeRequest(
        **_common(inputs),
        method=inputs.parameters["method"],
        start=inputs.parameters["start"],
        novelty=inputs.parameters["novelty"],
        maps=_label_maps(inputs),
    )
    return synthesize(model, request, decoders)


def _restyle(model: Model, inputs: _Inputs, decoders: Decoders) -> Job:
    request = RestyleRequest(
        **_common(inputs),
        method=inputs.parameters["method"],
        content=from_uint8(inputs.pictures["content"]),
    )
    return restyle(model, request, decoders)


def _generate(model: Model, inputs: _Inputs, decoders: Decoders) -> Job:
    parameters, layout = inputs.parameters, inputs.pictures.get("layout")
    prompts = _region_prompts(parameters)
    palette = torch.tensor(PALETTE[: len(prompts)])
    request = GenerateRequest(
        **_common(inputs),
        prompt=parameters["prompt"],
        negative_prompt=parameters["negative_prompt"],
        guidance=parameters["guidance"],
        region_prompts=prompts,
        layout=None if layout is None else labels.match(layout, palette, region_of_color),
    )
    return generate(model, request, decoders)


def _region_prompts(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    text = parameters["region_prompts"]
    return tuple(prompt.strip() for prompt in text.split("|")) if text else ()


RECIPES: dict[str, Callable[[Model, _Inputs, Decoders], Job]] = {
    "synthesize": _synthesize,
    "restyle": _restyle,
    "generate": _generate,
}
"""For each job kind that makes a texture: its request from the contract's parameters and pictures, and its recipe."""


EDITS: dict[str, Callable[[Model, Any, Decoders], Job]] = {
    wire.MAKE_TILEABLE.name: make_tileable,
    wire.REPAINT.name: repaint,
    wire.EXTEND.name: extend,
    wire.RELAYOUT.name: relayout,
}
"""For each edit its recipe, whose request is made in `worker.edits`."""


def _parts(swatch: Pixels, count: int) -> Pixels:
    """The region map (h, w, 3) of a swatch with `count` parts."""
    check_size("swatch", swatch, wire.MIN_PICTURE_SIDE)
    image: Pixels = np.array(PALETTE, np.uint8)[parts.parts(swatch, count).numpy()]
    return image


def _common(inputs: _Inputs) -> dict[str, Any]:
    """The fields that all requests have."""
    parameters, swatch = inputs.parameters, inputs.swatch
    return {
        "swatch": torch.empty(3, 0, 0) if swatch is None else from_uint8(swatch.pixels),
        "width": inputs.size[0],
        "height": inputs.size[1],
        "scale": 1.0 if swatch is None else swatch.remaining_scale,
        "tile_y": "y" in parameters["tile"],
        "tile_x": "x" in parameters["tile"],
        "channels": {} if swatch is None else {name: _channel(map) for name, map in swatch.maps.items()},
        **{
            p.name: p.given(parameters[p.name]) for p in wire.COMMON if p.name in COMMON_FIELDS and p.name in parameters
        },
    }


def _channel(map: MaterialMap) -> Channel:
    """A map as the core gets it."""
    pixels = torch.from_numpy(to_floats(map.pixels)).permute(2, 0, 1)
    return Channel(pixels, "height" if map.type.name == "height" else map.type.role, 8 * map.pixels.itemsize)


def _label_maps(inputs: _Inputs) -> LabelMaps | None:
    """The layout in the regions' labels, and the regions (h, w) at the swatch's size; None without a layout."""
    if inputs.swatch is None or inputs.swatch.regions is None or "layout" not in inputs.pictures:
        return None
    regions = labels.snap(inputs.swatch.regions, "regions")
    layout = labels.match(inputs.pictures["layout"], regions.palette, region_of_color)
    h, w = inputs.swatch.pixels.shape[:2]
    return LabelMaps(layout, labels.condense(regions.labels, h, w), regions.palette)


def _lit_and_scaled(swatch: PreparedSwatch, even_light: float) -> Pixels:
    """The prepared swatch as the core scales and lights it before it is encoded, (h, w, 3)."""
    picture = from_uint8(swatch.pixels)
    scale = exemplar.scale_of(picture, swatch.remaining_scale, wire.MIN_PICTURE_SIDE)
    regions = None
    if swatch.regions is not None:
        regions = labels.condense(labels.snap(swatch.regions, "regions").labels, scale.height, scale.width)
    return to_uint8(exemplar.scaled_and_lit(picture, scale, even_light, regions, PipelineOptions())).numpy()


# ---------------------------------------------------------------------------------------------- from one to the other


def _decode(picture: wire.Picture, data: bytes) -> Decoded:
    return decode(picture.name, data, picture.role)


def _step_of(step: CoreStep) -> Step:
    """The core's step as the worker's; a preview is encoded when it is asked for."""
    message = step.message[:1].upper() + step.message[1:]
    return Step(step.fraction, message, _encoded(step.preview), step.phase)


def _encoded(preview: Callable[[], Tensor] | None) -> Callable[[], bytes] | None:
    return None if preview is None else lambda: encode_preview(preview().cpu().numpy())


def _document(
    request: JobRequest,
    made: _Made,
    swatch: PreparedSwatch | None,
    metrics: Mapping[str, float],
    files: Mapping[str, str],
) -> dict[str, Any]:
    """What is stored in the result's PNG: the job, which `run` repeats, what it used, and what it was made with."""
    used = swatch and {"crop": list(swatch.used), "scale": swatch.scale, "sentence": swatch.sentence}
    return {
        **request.document(),
        "files": dict(files),
        **({"used": used} if used else {}),
        "made_with": {wire.SERVICE_NAME: __version__, **made.made_with},
        "metrics": dict(metrics),
        **({"origins": dict(made.origins)} if made.origins else {}),
    }


@contextmanager
def core_errors() -> Iterator[None]:
    """Turns errors of the core and of torch into errors of the closed list; any other exception is a defect."""
    try:
        yield
    except CheckpointError as error:
        raise WireError("model-corrupt", str(error)) from error
    except NoText as error:
        raise WireError("invalid-parameter", str(error), parameter="model") from error
    except NothingToFillFrom as error:
        raise WireError("invalid-image", str(error), picture="picture") from error
    except labels.LabelError as error:
        raise WireError("invalid-labels", str(error)) from error
    except samplers.NotFinite as error:
        raise WireError("nan-output", str(error)) from error
    except (RuntimeError, MemoryError) as error:
        text = str(error)
        if devices.is_out_of_memory(error):
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
    """Free and total bytes of the device's memory; (0, 0) where the platform does not report them."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")  # sysconf's free pages leave out the page cache
        kilobytes = {name: int(value.split()[0]) for name, value in (line.split(":") for line in text.splitlines())}
        return kilobytes["MemAvailable"] * 1024, kilobytes["MemTotal"] * 1024
    except OSError:
        return 0, 0
