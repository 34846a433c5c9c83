"""What version 0.1.0 saved still works: `tests/data/version_0_1_0.png` is a result of it, `swatch.png` its swatch.

It was made by

    ad-service synthesize swatch.png --size 64x64 --method optimise --steps 1 --seed 7 --detail off --precision fp32
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ad_service.cli import main
from ad_service.worker.image_files import job_document

DATA = Path(__file__).parents[1] / "data"


def test_a_result_of_version_0_1_0_is_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = DATA / "version_0_1_0.png"
    assert job_document("old", saved.read_bytes())["parameters"]["method"] == "optimise", "as it was spelled then"
    assert main(["run", str(saved), "--out", str(tmp_path), "--data-dir", str(tmp_path / "data")]) == 0
    again = tmp_path / "version_0_1_0.png"
    assert str(again) in capsys.readouterr().out
    assert job_document("new", again.read_bytes())["parameters"]["method"] == "optimize"
    pixels = [np.asarray(Image.open(io.BytesIO(path.read_bytes()))).astype(int) for path in (saved, again)]
    assert np.abs(pixels[0] - pixels[1]).mean() < 1.0, "the same texture, but for fewer steps near its cuts"
