"""A real job stops soon after a cancel, inside of each of its steps, and leaves the loaded model as it was."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from traceback import extract_stack

import numpy as np
import pytest
from PIL import Image

from ad_service.core.steps import run as run_steps
from ad_service.worker.engine import Outcome, Step
from ad_service.worker.runner import Runner
from ad_service.worker.worker import CanceledError
from blender_addon.wire import JobRequest
from tests.support import tiny_checkpoints

pytestmark = pytest.mark.usefixtures("one_thread")


class Job:
    """A small job of a real engine, whose checks can be counted and made to raise."""

    def __init__(self, data_dir: Path, model: str, **more: object) -> None:
        buffer = io.BytesIO()
        pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        self._swatch = buffer.getvalue()
        inputs = {"swatch": hashlib.sha256(self._swatch).hexdigest()}
        parameters = {"model": model, "width": 160, "height": 128, "steps": 2, "detail": "pixels", **more}
        self._request = JobRequest.parse({"kind": "synthesize", "parameters": parameters, "inputs": inputs})
        self._runner = Runner(data_dir)

    def run(self, check: Callable[[str], None]) -> Outcome:
        """Runs the job; `check` is called at each checkpoint with the phase of the last step."""
        phase = ""

        def on_step(step: Step) -> None:
            nonlocal phase
            phase = step.phase

        return run_steps(self._runner.run(self._request, lambda _: self._swatch), on_step, lambda: check(phase))


@pytest.mark.parametrize(("name", "method"), [("pocket", "sample"), ("sd15", "optimize")])
def test_a_job_is_canceled_inside_its_steps_and_the_next_one_is_the_same(
    tmp_path: Path, name: str, method: str
) -> None:
    make = {"pocket": tiny_checkpoints.tiny_pocket, "sd15": tiny_checkpoints.tiny_sd15}[name]
    make(tmp_path / "models" / "tiny")
    job = Job(tmp_path, "tiny", method=method)
    before = job.run(lambda _: None).pictures["image"]
    phases: list[str] = []
    job.run(phases.append)
    counted = Counter(phases)
    assert counted["denoise"] > 10 and len(phases) > 40, "many in each step"
    for phase in counted:
        seen = 0

        def cancel(now: str, phase: str = phase) -> None:
            nonlocal seen
            seen += now == phase
            if seen > counted[phase] // 2:
                raise CanceledError

        with pytest.raises(CanceledError):
            job.run(cancel)
    assert job.run(lambda _: None).pictures["image"] == before


def test_a_backward_pass_is_canceled(tmp_path: Path) -> None:
    tiny_checkpoints.tiny_sd15(tmp_path / "models" / "tiny")
    job = Job(tmp_path, "tiny", method="optimize")

    def cancel(_: str) -> None:
        if any(frame.name == "grad" and frame.filename.endswith("autograd/__init__.py") for frame in extract_stack()):
            raise CanceledError

    with pytest.raises(CanceledError):
        job.run(cancel)
