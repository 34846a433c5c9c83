"""What a job would use and make, in a process of its own that ends with its answer: a request on stdin, a plan on
stdout. No torch.

The service starts it for each plan, so that pictures are decoded outside of the process that answers HTTP.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ad_service.storage.blobs import BlobStore
from ad_service.worker.image_files import Decoded, decode
from ad_service.worker.inputs import picture_notes, result_size, size_of_content
from ad_service.worker.maps import maps_of
from ad_service.worker.swatch import SwatchOptions, count_parts, prepare_swatch
from blender_addon import wire
from blender_addon.wire import JobRequest, Plan, WireError

POCKET_MEMORY = ((256 * 256, 281e6), (512 * 512, 767e6), (2048 * 2048, 1896e6))
"""Pixels of a result and bytes that a job of pocket needs at most, as measured by `ad-service bench` (docs/speed)."""


def make_plan(body: Any, read: Callable[[str], bytes]) -> Plan:
    """The plan of a job; sizes that are no multiples are rounded. `read` returns a picture by its sha256.

    Raises: WireError.
    """
    rounded, notes = round_sizes(body)
    request = JobRequest.parse(rounded)
    kind = wire.KINDS[request.kind]
    if not _has_size(kind):
        raise WireError("invalid-request", f"a job of the kind {kind.name} has no size that could be planned")
    decoded: dict[str, Decoded] = {
        name: decode(name, read(sha), kind.picture(name).role)
        for name, sha in request.inputs.items()
        if wire.map_name(name) is None
    }
    maps, map_notes = maps_of(request, decoded, read, {})
    size = result_size(request.parameters, size_of_content(decoded))
    regions = decoded["regions"].pixels if "regions" in decoded else None
    options = SwatchOptions()
    swatch = prepare_swatch(decoded["swatch"], request.parameters, size, regions, options)
    notes += [*picture_notes(decoded, request.parameters), *map_notes, *swatch.notes]
    parts = count_parts(swatch, size, options)
    if parts < options.least_parts:
        shown = f"{parts:.0f} of the swatch's parts" if parts >= 1.5 else "one of the swatch's parts or less"
        remedy = "; the automatic scale shows more" if request.parameters["scale"] else ""
        notes.append(f"The result shows about {shown}, where a dozen look better{remedy}")
    return Plan(
        swatch.used,
        swatch.scale,
        *size,
        swatch.sentence,
        swatch.pixels_per_meter,
        memory_bytes=_memory(size, len(maps)) if request.parameters.get("model") == "pocket" else None,
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


def _memory(size: tuple[int, int], maps: int) -> int:
    """Bytes that a job of pocket needs for a result of this size: linear between the measured sizes and beyond."""
    pixels = size[0] * size[1]
    last = len(POCKET_MEMORY) - 1
    upper = next((i for i, (measured, _) in enumerate(POCKET_MEMORY[1:last], 1) if pixels <= measured), last)
    (x0, y0), (x1, y1) = POCKET_MEMORY[upper - 1 : upper + 1]
    return round(max(0.0, y0 + (y1 - y0) * (pixels - x0) / (x1 - x0)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ad_service.worker.plan", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    store = BlobStore(parser.parse_args().data_dir / "blobs")
    try:
        answer: dict[str, Any] = {"plan": asdict(make_plan(json.load(sys.stdin), store.read))}
    except WireError as error:
        answer = {"problem": error.problem()}
    except MemoryError:
        answer = {"problem": WireError("out-of-memory", "the pictures do not fit into the memory").problem()}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
