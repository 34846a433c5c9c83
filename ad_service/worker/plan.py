"""What jobs would use and make, in a separate process: a request in each line of stdin, a plan in each of stdout.

The service starts it, so that pictures are decoded outside of the process that answers HTTP. It remembers what it has
decoded and measured, since an artist changes one parameter after the other, and ends when there is nothing to do.
No torch.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ad_service.core.backbone import memory
from ad_service.core.pictures.grain import Grain, GrainOptions, measure_grain
from ad_service.storage import models
from ad_service.storage.blobs import BlobStore
from ad_service.worker.image_files import Decoded, Pixels, decode
from ad_service.worker.inputs import enlarged_side, picture_notes, result_size, size_of_content
from ad_service.worker.maps import MaterialMap, maps_of
from ad_service.worker.swatch import SwatchOptions, count_parts, prepare_swatch
from blender_addon import wire
from blender_addon.wire import JobRequest, Plan, WireError

POCKET_MEMORY = ((256 * 256, 281e6), (512 * 512, 767e6), (2048 * 2048, 1896e6))
"""Pixels of a result and bytes that a job of pocket needs at most, as measured by `ad-service bench` (docs/speed)."""

MAP_MEMORY = 13
"""Bytes for each pixel of the result and each map: four at 4096x4096, two of them with 16 bits, took 0.85 GB."""


MAX_BYTES = 400_000_000
"""Decoded pictures that are remembered: a photograph of 48 megapixels has 144 MB."""
MAX_GRAINS = 100
Maps = tuple[dict[str, MaterialMap], tuple[str, ...]]
IDLE_SECONDS = 60.0
"""How long the process waits for another request."""


class Pictures:
    """The pictures that were decoded and measured last. `read` returns a picture's bytes by its sha256."""

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._read = read
        self._decoded: OrderedDict[tuple[str, str, str], Decoded] = OrderedDict()
        self._grains: OrderedDict[tuple[bytes, tuple[int, ...], GrainOptions], Grain] = OrderedDict()
        self._maps: tuple[object, Maps] = (None, ({}, ()))

    def decode(self, name: str, sha: str, role: wire.Role) -> Decoded:
        """The pixels of a picture. Raises: WireError."""
        key = name, sha, role
        if key not in self._decoded:
            self._decoded[key] = decode(name, self._read(sha), role)
        self._decoded.move_to_end(key)
        while len(self._decoded) > 1 and sum(d.pixels.nbytes for d in self._decoded.values()) > MAX_BYTES:
            self._decoded.popitem(last=False)
        return self._decoded[key]

    def maps(self, request: JobRequest, decoded: Mapping[str, Decoded]) -> Maps:
        """The maps of a job and the notes on them, see `maps_of`; those of the last job are remembered."""
        key = tuple(sorted(request.inputs.items())), request.parameters.get("normal_format")
        if self._maps[0] != key:
            self._maps = key, maps_of(request, decoded, self._read, {})
        return self._maps[1]

    def measure(self, pixels: Pixels, options: GrainOptions) -> Grain:
        """The grain of pixels (h, w, 3), as `measure_grain` returns it."""
        key = hashlib.sha256(pixels.tobytes()).digest(), pixels.shape, options
        if key not in self._grains:
            self._grains[key] = measure_grain(pixels, options)
        self._grains.move_to_end(key)
        if len(self._grains) > MAX_GRAINS:
            self._grains.popitem(last=False)
        return self._grains[key]

    def clear(self) -> None:
        self._decoded.clear()
        self._maps = (None, ({}, ()))


def make_plan(body: Any, pictures: Pictures, data_dir: Path | None = None) -> Plan:
    """The plan of a job; sizes that are no multiples are rounded.

    `data_dir` has the models whose memory is estimated; without it only pocket's is.

    Raises: WireError.
    """
    rounded, notes = round_sizes(body)
    request = JobRequest.parse(rounded)
    kind = wire.KINDS[request.kind]
    if not _has_size(kind):
        raise WireError("invalid-request", f"a job of the kind {kind.name} has no size that could be planned")
    decoded: dict[str, Decoded] = {
        name: pictures.decode(name, sha, kind.picture(name).role)
        for name, sha in request.inputs.items()
        if wire.map_name(name) is None
    }
    maps, map_notes = pictures.maps(request, decoded)
    size = result_size(request.parameters, size_of_content(decoded))
    if "swatch" not in decoded:
        notes += picture_notes(decoded, request.parameters)
        used = _memory(request.parameters, size, data_dir)
        return Plan((0, 0, 0, 0), 1.0, *size, "Made from words alone", memory_bytes=used, notes=tuple(notes))
    regions = decoded["regions"].pixels if "regions" in decoded else None
    options = SwatchOptions()
    enlarged_to = enlarged_side(request.parameters, data_dir)
    swatch = prepare_swatch(
        decoded["swatch"],
        request.parameters,
        size,
        regions,
        options,
        enlarged_to=enlarged_to,
        measure=pictures.measure,
    )
    notes += [*picture_notes(decoded, request.parameters), *map_notes, *swatch.notes]
    parts = count_parts(swatch, size, options, pictures.measure)
    if parts < options.least_parts:
        shown = f"{parts:.0f} of the swatch's parts" if parts >= 1.5 else "one of the swatch's parts or less"
        remedy = "; the automatic scale shows more" if request.parameters["scale"] else ""
        notes.append(f"The result shows about {shown}, where a dozen look better{remedy}")
    used = _memory(request.parameters, size, data_dir)
    return Plan(
        swatch.used,
        swatch.scale,
        *size,
        swatch.sentence,
        swatch.pixels_per_meter,
        memory_bytes=None if used is None else used + MAP_MEMORY * len(maps) * size[0] * size[1],
        notes=tuple(notes),
    )


def _has_size(kind: wire.JobKind) -> bool:
    return any(parameter.name == "width" for parameter in kind.parameters)


def round_sizes(body: Any) -> tuple[Any, list[str]]:
    """The body of a job with width and height at their nearest accepted values, and a note if they changed."""
    kind = wire.KINDS.get(str(body.get("kind"))) if isinstance(body, Mapping) else None
    parameters = body.get("parameters") if kind is not None else None
    if kind is None or not _has_size(kind) or not isinstance(parameters, Mapping):
        return body, []
    given: list[str] = []
    used: list[str] = []
    changed = dict(parameters)
    for name in ("width", "height"):
        value, parameter = parameters.get(name), kind.parameter(name)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e9
        if is_number and parameter.given(value) is not None:
            changed[name] = parameter.value.nearest(value)
        given.append(f"{parameters.get(name, parameter.default)}")
        used.append(f"{changed.get(name, parameter.default)}")
    if given == used:
        return body, []
    multiple = kind.parameter("width").document().multiple
    note = f"The size {' x '.join(given)} becomes {' x '.join(used)}, since sides are multiples of {multiple}"
    return {**body, "parameters": changed}, [note]


def _memory(parameters: Mapping[str, Any], size: tuple[int, int], data_dir: Path | None) -> int | None:
    """Bytes that a job needs at full speed; None for a model that cannot be found."""
    if parameters["model"] == "pocket":
        return _pocket_memory(size)
    if data_dir is None:
        return None
    try:
        family = models.find(parameters["model"], data_dir).family
    except WireError:
        return None
    itemsize = 4 if parameters["precision"] == "fp32" else 2
    found = memory.job_memory(family, itemsize, max(size) // 8)
    return None if found is None else found.comfortable


def _pocket_memory(size: tuple[int, int]) -> int:
    """Bytes that a job of pocket needs for a result of this size: linear between the measured sizes and beyond."""
    pixels = size[0] * size[1]
    last = len(POCKET_MEMORY) - 1
    upper = next((i for i, (measured, _) in enumerate(POCKET_MEMORY[1:last], 1) if pixels <= measured), last)
    (x0, y0), (x1, y1) = POCKET_MEMORY[upper - 1 : upper + 1]
    return round(max(0.0, y0 + (y1 - y0) * (pixels - x0) / (x1 - x0)))


def answer(line: str, pictures: Pictures, data_dir: Path) -> dict[str, Any]:
    """The plan for a request, both as JSON, or the problem."""
    try:
        return {"plan": asdict(make_plan(json.loads(line), pictures, data_dir))}
    except WireError as error:
        return {"problem": error.problem()}
    except MemoryError:
        pictures.clear()
        return {"problem": WireError("out-of-memory", "the pictures do not fit into the memory").problem()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ad_service.worker.plan", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    data_dir = parser.parse_args().data_dir
    pictures = Pictures(BlobStore(data_dir / "blobs").read)
    idle = threading.Timer(IDLE_SECONDS, os._exit, (0,))
    for line in sys.stdin:
        idle.cancel()
        print(json.dumps(answer(line, pictures, data_dir)), flush=True)
        idle = threading.Timer(IDLE_SECONDS, os._exit, (0,))  # a read of stdin cannot be ended otherwise
        idle.daemon = True
        idle.start()


if __name__ == "__main__":
    main()
