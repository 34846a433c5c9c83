"""Maps that a job estimates: only those that nobody gave, and not from pictures that are none of a surface."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ad_service.core.steps import run as run_steps
from ad_service.worker.engine import Outcome
from ad_service.worker.estimates import check_picture
from ad_service.worker.image_files import decode_map
from ad_service.worker.runner import Runner
from blender_addon.wire import JobRequest, WireError

PICTURE = np.random.default_rng(0).integers(40, 200, (64, 96, 3), np.uint8)


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def estimate(pictures: dict[str, npt.NDArray[np.uint8]], **parameters: object) -> Outcome:
    data = {name: png(pixels) for name, pixels in pictures.items()}
    blobs = {hashlib.sha256(d).hexdigest(): d for d in data.values()}
    inputs = {name: hashlib.sha256(d).hexdigest() for name, d in data.items()}
    request = JobRequest.parse({"kind": "estimate", "parameters": parameters, "inputs": inputs})
    return run_steps(Runner(Path()).run(request, blobs.__getitem__))


def test_a_picture_gets_a_normal_a_roughness_and_a_height_of_16_bits() -> None:
    outcome = estimate({"picture": PICTURE}, tile="xy")
    assert outcome.origins == dict.fromkeys(("normal", "roughness", "height"), "estimated")
    depths = {name: decode_map(name, data, "data")[0] for name, data in outcome.pictures.items()}
    assert {name: pixels.dtype.itemsize for name, pixels in depths.items()} == {
        "image": 1,
        "map:normal": 1,
        "map:roughness": 1,
        "map:height": 2,
    }
    assert all(pixels.shape[:2] == (64, 96) for pixels in depths.values())


def test_maps_that_are_given_are_not_estimated() -> None:
    rough = np.full((64, 96), 77, np.uint8)
    outcome = estimate({"picture": PICTURE, "map:roughness": rough})
    assert outcome.origins == {"roughness": "given", "normal": "estimated", "height": "estimated"}
    assert (decode_map("r", outcome.pictures["map:roughness"], "data")[0] == 77).all()


def test_a_normal_map_is_no_picture_of_a_surface() -> None:
    normal = np.full((64, 64, 3), (128, 128, 255), np.uint8)
    with pytest.raises(WireError, match="picture is a normal map; give the photograph"):
        check_picture("picture", normal)


@pytest.mark.parametrize(
    ("pixels", "note"),
    [
        (np.full((64, 64, 3), 120, np.uint8), "has one color everywhere"),
        (np.repeat(PICTURE[..., :1], 3, 2), "is gray"),
    ],
)
def test_a_picture_that_shows_little_gets_a_note(pixels: npt.NDArray[np.uint8], note: str) -> None:
    assert note in check_picture("picture", pixels)[0]


def test_an_ordinary_picture_gets_no_note() -> None:
    assert check_picture("picture", PICTURE) == ()
