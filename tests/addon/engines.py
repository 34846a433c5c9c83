"""Engines for the add-on's tests, run in the service's worker: quick ones, slow ones, and ones that fail."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from ad_service.worker import protocol
from ad_service.worker.engine import Outcome, Read, Step, Steps
from blender_addon import wire


class Tiles:
    """Repeats the swatch over the canvas, tinted by the layout or the content where one is given.

    Maps are repeated in the same way; `maps` are others that are estimated, as the color.
    A job of the kind `prepare` makes the swatch darker by half of `even_light`.

    `pause` is the time of each step.
    """

    def __init__(self, pause: float, steps: int = 5, maps: tuple[str, ...] = ()) -> None:
        self.pause, self.steps, self.maps = pause, steps, maps

    def ready(self) -> protocol.Ready:
        return protocol.Ready("cpu", "Test device", 8_000_000_000, 6_000_000_000)

    def run(self, request: wire.JobRequest, read: Read) -> Steps:
        p = request.parameters
        if request.kind == "prepare":
            picture = np.asarray(Image.open(io.BytesIO(read(request.inputs["swatch"]))).convert("RGB"))
            yield Step(0.5, "Preparing")
            return Outcome({"image": _png((picture * (1 - p["even_light"] / 2)).astype(np.uint8))}, {}, ())
        if "picture" in request.inputs:
            yield Step(0.5, "Editing")
            return _edited(request, read)
        swatch = np.asarray(Image.open(io.BytesIO(read(request.inputs["swatch"]))).convert("RGB"))
        over = [Image.open(io.BytesIO(read(request.inputs[n]))) for n in ("layout", "content") if n in request.inputs]
        if request.kind == "suggest_regions":
            yield Step(0.5, "Computing the map")
            return Outcome({"image": _png(_thirds(swatch, p["parts"]))})
        width, height = p["width"] or over[0].width, p["height"] or over[0].height
        rows = (np.arange(height) + p["seed"]) % swatch.shape[0]
        canvas = swatch[rows][:, np.arange(width) % swatch.shape[1]]
        for picture in over:
            canvas = canvas // 2 + np.asarray(picture.convert("RGB").resize((width, height), 0)) // 2
        for step in range(self.steps):
            part = (step + 1) / self.steps
            yield Step(part, f"Step {step + 1} of {self.steps}", lambda part=part: _png(canvas[:: int(2 / part)]))
            time.sleep(self.pause)
        pictures, origins = {"image": _png(canvas)}, dict[str, wire.Origin]()
        for name in self.maps:
            pictures[wire.map_input(name)], origins[name] = _png(canvas), "estimated"
        for picture, sha in request.inputs.items():
            if (name := wire.map_name(picture)) is not None:
                values = np.asarray(Image.open(io.BytesIO(read(sha))))
                values = values[rows % values.shape[0]][:, np.arange(width) % values.shape[1]]
                pictures[picture], origins[name] = _png(values), "followed"
        return Outcome(pictures, {"seam_x": 1.02}, ("A note for the artist.",), origins)


class Dies(Tiles):
    """Takes its worker down at the second step."""

    def run(self, request: wire.JobRequest, read: Read) -> Steps:
        for step in super().run(request, read):
            yield step
            os._exit(1)
        raise AssertionError


class Fails(Tiles):
    def run(self, request: wire.JobRequest, read: Read) -> Steps:
        yield Step(0.1, "Step 1 of 5")
        raise wire.WireError("out-of-memory", "512 x 512 does not fit into 1 GB")


def _edited(request: wire.JobRequest, read: Read) -> Outcome:
    """The picture and its maps, 0 where the mask is white; an estimate adds a normal map that is the color."""
    mask = Image.open(io.BytesIO(read(request.inputs["mask"]))).convert("L") if "mask" in request.inputs else None
    pictures: dict[str, bytes] = {}
    for name, sha in request.inputs.items():
        if name == "picture" or wire.map_name(name) is not None:
            values = np.array(Image.open(io.BytesIO(read(sha))))
            if mask is not None:
                values[np.asarray(mask) > 127] = 0
            pictures["image" if name == "picture" else name] = _png(values)
    origins: dict[str, wire.Origin] = {n: "given" for p in pictures if (n := wire.map_name(p)) is not None}
    if request.kind == "estimate":
        pictures |= {"map:normal": pictures["image"]}
        origins["normal"] = "estimated"
    return Outcome(pictures, {}, (), origins)


def _thirds(swatch: np.ndarray, parts: int) -> np.ndarray:
    """A flat color for each part of a swatch, from the left; the second part is twice as wide as the others."""
    column = np.arange(swatch.shape[1]) * (parts + 1) // swatch.shape[1]
    part = np.where(column > 1, column - 1, column)
    return np.stack([part * 25, 255 - part * 25, part * 0], -1).astype(np.uint8)[None].repeat(len(swatch), 0)


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()


def quick(_data_dir: Path) -> Tiles:
    return Tiles(0.0)


def slow(_data_dir: Path) -> Tiles:
    return Tiles(0.4, steps=100)


def steady(_data_dir: Path) -> Tiles:
    return Tiles(0.6, steps=15)


def brisk(_data_dir: Path) -> Tiles:
    return Tiles(0.2, steps=10)


def material(_data_dir: Path) -> Tiles:
    return Tiles(0.0, maps=("normal", "roughness", "height"))


def dies(_data_dir: Path) -> Dies:
    return Dies(0.0)


def fails(_data_dir: Path) -> Fails:
    return Fails(0.0)
