"""The benchmark: the paper's schedule has the cost of its formula, and the report has what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ad_service.bench import benchmark, measure, paper_schedule, report
from ad_service.cli import main
from ad_service.core import SynthesizeRequest
from ad_service.core.backbone.model import FAMILIES
from ad_service.core.sampling.attention import capture_attention
from ad_service.worker import image_files
from tests.support.tiny_models import backbone, end, noise, seeded, texture

Say = pytest.CaptureFixture[str]


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 16 latents in place of 64, so that several fit on a small canvas."""
    monkeypatch.setattr(paper_schedule, "SIDE", 16)


# -- the paper's schedule --------------------------------------------------------------------------------------------


def test_the_paper_has_625_windows_for_2048_pixels_of_stable_diffusion() -> None:
    spots = paper_schedule.grid(256, 256)
    assert len(spots) == paper_schedule.count(256, 256).windows == 625
    assert {(w.height, w.width) for w in spots} == {(64, 64)}
    assert (spots[0].y, spots[0].x) == (0, 0) and (spots[-1].y, spots[-1].x) == (192, 192)


def test_the_last_windows_end_at_the_edge_if_the_stride_does_not_fit() -> None:
    assert [w.x for w in paper_schedule.grid(64, 77)] == [0, 8, 13]


def test_a_small_canvas_is_one_window_of_its_size() -> None:
    (window,) = paper_schedule.grid(16, 32)
    assert (window.y, window.x, window.height, window.width) == (0, 0, 16, 32)


def test_the_cost_of_2048_pixels_is_as_counted_by_hand() -> None:
    assert paper_schedule.count(256, 256) == paper_schedule.Count(
        windows=625, batches=50 * 79, forwards=50 * (79 + 625 + 2 * 625), backwards=50 * 2 * 625
    )


@pytest.mark.parametrize("family", ["pocket", "sd15"])
def test_the_network_sees_as_many_windows_as_the_formula_gives(family: str, small_windows: None) -> None:
    model = backbone(family)
    z_swatch = noise(model.vae.config.latent_channels, 16, 16)
    with capture_attention(model) as capture:
        seen, canvas = end(paper_schedule.sample(capture, z_swatch, 16, 96, seeded(), steps=2))
    count = paper_schedule.count(16, 96, steps=2)
    assert (capture.forwards, capture.backwards) == (count.forwards, count.backwards)
    assert (len(seen), sum(seen)) == (count.batches, 2 * count.windows) == (4, 22)
    assert canvas.shape == (len(z_swatch), 16, 96)
    assert torch.isfinite(canvas).all()


def test_the_swatch_passes_again_with_fresh_noise_for_each_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, seen = backbone("sd15"), []
    with capture_attention(model) as capture:
        reference = capture.reference
        monkeypatch.setattr(capture, "reference", lambda zs, t: (seen.append((zs, t)), reference(zs, t))[1])
        end(paper_schedule.sample(capture, noise(4, 16, 16), 16, 16, seeded(), steps=4))
    assert [t for _, t in seen] == [501, 251, 1, 0]
    assert len({float(zs.sum()) for zs, _ in seen}) == 4


def test_two_steps_of_a_fresh_adam_lower_the_loss() -> None:
    model = backbone("sd15")
    with capture_attention(model) as capture:
        reference, z = capture.reference(noise(1, 4, 16, 16), 1), noise(1, 4, 16, 16, seed=1)
        moved = (paper_schedule._descend(capture, z, 1, reference) - z).abs()
    assert float(moved.median()) == pytest.approx(2 * paper_schedule.LEARNING_RATE, rel=0.2)


# -- what is measured ------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def tiny_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tiny case that runs everywhere, and one that needs a GPU."""
    cases = (
        benchmark.Case("tiny", "a tiny model", lambda device: backbone("pocket"), on_cpu=((64, 64),)),
        benchmark.Case("huge", "a huge model", lambda device: pytest.fail("must not be loaded"), on_cpu=()),
    )
    monkeypatch.setattr(benchmark, "CASES", {case.name: case for case in cases})
    monkeypatch.setattr(measure, "matrix_peak", lambda device, dtype: 1e9)


def measured(**options: object) -> report.Row:
    (row,) = benchmark.bench(texture(64, 64), benchmark.BenchOptions(device="cpu", **options), "ad-service bench").rows
    return row


def test_a_small_picture_is_measured_in_full_by_both_schedules() -> None:
    row = measured(cases=("tiny",))
    count, steps = paper_schedule.count(16, 16), FAMILIES["pocket"].optimize.steps
    assert row.reference is not None
    assert row.reference.measured == row.ours.measured == "measured in full"
    assert (row.reference.forwards, row.reference.backwards) == (count.forwards, count.backwards) == (200, 100)
    assert (row.ours.forwards, row.ours.backwards) == (1 + steps, steps)
    for run in (row.reference, row.ours):
        assert run.seconds == pytest.approx(sum(run.phases.values()))
        assert run.seams is not None and run.patch_distance is not None
        assert run.phases["decode"] > 0 and run.phases["sampling"] > 0
        assert run.peak_share > 0
    assert row.ratio == row.reference.seconds / row.ours.seconds


def test_a_scaled_run_has_all_passes_and_no_quality_metrics(small_windows: None) -> None:
    row = measured(cases=("tiny",), sizes=((128, 64),), reference_batches=3)
    count = paper_schedule.count(16, 32)
    assert row.reference is not None
    assert row.reference.measured == "scaled from 3 of 50 batches"
    assert (row.reference.forwards, row.reference.backwards) == (count.forwards, count.backwards)
    assert row.reference.seams is None and row.reference.patch_distance is None
    assert row.reference.phases["decode"] == 0


def test_scaling_multiplies_by_the_exact_number_of_windows_and_steps(
    monkeypatch: pytest.MonkeyPatch, small_windows: None
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(measure, "now", lambda device: float(next(clock)))
    reference = benchmark._Reference(backbone("pocket"), texture(64, 64), (384, 64), peak=1.0)  # 11 windows: 8 and 3
    reference.run(1)
    reference.run(2)
    assert reference.count.windows == 11
    result = reference.result()
    assert result.phases["sampling"] == (1 + 1) * (11 * 50) / (8 + 11)
    assert result.phases["encode"] == 1
    assert result.measured == "scaled from 3 of 100 batches"


def test_fewer_steps_leave_the_paper_out() -> None:
    row = measured(cases=("tiny",), steps=1)
    assert row.reference is None and row.ratio is None
    assert (row.ours.measured, row.ours.forwards, row.ours.backwards) == ("--steps 1", 2, 1)


def test_the_ratio_is_told_apart_into_windows_and_passes() -> None:
    model, swatch = backbone("pocket"), texture(64, 64)
    request = SynthesizeRequest(swatch=swatch, height=64, width=64)
    theirs = benchmark._Reference(model, swatch, (64, 64), peak=1.0).flops()
    factors = benchmark._factors(model, request, theirs, 10**9)
    assert factors["at_equal_steps"] * factors["fewer_passes"] == pytest.approx(theirs / 10**9)
    # one window: the same two Adam iterations and one forward pass a step, but ours runs two steps on two grids and
    # reads the swatch once, not in each of 50 steps
    assert factors["at_equal_steps"] == pytest.approx((50 + 50 * 3) / (1 + 52 * 3), rel=0.1)


def test_the_papers_schedule_runs_without_deterministic_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    gradient = paper_schedule.gradient

    def watched(*given: object) -> Tensor:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return gradient(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(paper_schedule, "gradient", watched)
    torch.use_deterministic_algorithms(True)
    try:
        benchmark._Reference(backbone("pocket"), texture(64, 64), (64, 64), peak=1.0).run(1)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert seen == [False] * len(seen) and seen


def test_flops_depend_on_the_size_of_the_swatch() -> None:
    """Pocket reads the swatch in context: a small one costs less."""
    small, large = (measure.Flops.count(backbone("pocket"), 16, 16, torch.zeros(1, 16, n, n)) for n in (8, 32))
    assert small.forward < 0.9 * large.forward


def test_counting_touches_neither_the_device_nor_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    model = backbone("sd15")
    monkeypatch.setattr(type(model.unet), "forward", _on_meta(type(model.unet).forward))
    assert measure.Flops.count(model, 16, 16).forward > 0


def _on_meta(forward: Any) -> Any:
    def checked(unet: Any, z: Tensor, *rest: Any, **more: Any) -> Any:
        assert z.device.type == "meta"
        return forward(unet, z, *rest, **more)

    return checked


def test_flops_are_counted_in_every_layer_forward_and_backward() -> None:
    flops = measure.Flops.count(backbone("sd15"), 16, 16)
    assert measure.Flops.count(backbone("sd15"), 32, 32).forward > 4 * flops.forward  # attention grows faster than area
    assert flops.gradient > 2 * flops.forward
    assert flops.of(5, 2) == 3 * flops.forward + 2 * flops.gradient


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_memory_is_the_peak_within_the_block() -> None:
    with measure.memory(torch.device("cpu")) as memory:
        torch.ones(1 << 24)
    assert memory.peak is not None
    assert memory.peak == pytest.approx(1 << 26, rel=0.2)


def test_the_small_stable_diffusion_has_the_layers_of_the_real_one() -> None:
    model = benchmark._small(torch.device("cpu"))
    with capture_attention(model) as capture:
        assert (capture.count, list(capture.loss_layers)) == (16, [10, 11, 12, 13, 14, 15])
    assert model.family.name == "sd15"


# -- the command -----------------------------------------------------------------------------------------------------


def call(*arguments: object) -> int:
    try:
        return main(["bench", *map(str, arguments)])
    except SystemExit as end:
        return int(end.code or 0)


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path, capsys: Say) -> None:
    file = tmp_path / "bench.json"
    assert call("--reference-batches", 1, "--json", file) == 0
    said, complained = capsys.readouterr()
    assert complained == ""
    assert said.startswith(f"    ad-service bench --reference-batches 1 --json {file}\n\n| model | size |")
    rows = [line for line in said.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert len(rows) == 4 and "scaled from 1 of 50 batches" in rows[2] and "measured in full" in rows[3]
    document = json.loads(file.read_text(encoding="utf-8"))
    assert {"command", "device", "torch", "threads", "rows"} == set(document)
    assert document["rows"][0]["dtype"] == "float32"
    assert document["rows"][0]["ratio"] > 0
    measured = report.Report.read(file.read_text(encoding="utf-8"))
    assert measured.markdown() == said
    assert json.loads(measured.json()) == document


def test_several_sizes_show_how_cost_grows(capsys: Say) -> None:
    assert call("--steps", 1, "--size", 64, "--size", "128x64") == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [row[2].strip() for row in rows[2:]] == ["64x64", "128x64"]
    assert rows[2][6].strip() == "1.00"


def test_another_swatch_can_be_given(tmp_path: Path, capsys: Say) -> None:
    file = tmp_path / "swatch.png"
    Image.new("RGB", (70, 40)).save(file)
    assert call("--swatch", file) == 2
    assert "70x40" in capsys.readouterr().err
    assert benchmark.example().shape == (3, 128, 384)
    assert benchmark.read_swatch(image_files.encode_png(np.full((64, 96, 3), 255, np.uint8), {})).shape == (3, 64, 96)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--case", "sd14"), "'sd14'; it must be one of tiny, huge"),
        (("--case", "huge"), "huge needs a GPU"),
        (("--size", "100x64"), "100x64"),
        (("--size", "wide"), "'wide'"),
        (("--reference-batches", "-1"), "'-1'"),
        (("--swatch", "nowhere.png"), "nowhere.png"),
        (("--json", "nowhere/bench.json"), "nowhere"),
    ],
)
def test_an_impossible_case_is_one_line_with_the_reason(arguments: tuple[str, ...], told: str, capsys: Say) -> None:
    if torch.cuda.is_available() and "huge" in arguments:
        pytest.skip("there is a GPU")
    assert call(*arguments) == 2
    said, complained = capsys.readouterr()
    assert said == "" and told in complained
    assert len(complained.splitlines()) == 1


def test_the_help_names_every_case(monkeypatch: pytest.MonkeyPatch, capsys: Say) -> None:
    monkeypatch.undo()
    assert call("--help") == 0
    told = capsys.readouterr().out
    assert [name for name in benchmark.CASES if name not in told] == []
    assert {"pocket", "sd15-small", "sd15", "sdxl"} == set(benchmark.CASES)
