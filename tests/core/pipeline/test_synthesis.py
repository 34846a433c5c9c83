"""Synthesis: any size, tiling, scale, layout and detail gives a whole picture; jobs repeat and can be dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ad_service.core import LabelMaps, RestyleRequest, Result, Step, SynthesizeRequest, metrics
from ad_service.core.backbone import codec
from ad_service.core.backbone.model import Model, self_attention_layers
from ad_service.core.canvas import Shape, resized
from ad_service.core.labels import LabelError
from ad_service.core.pipeline import denoise, exemplar, start
from ad_service.core.pipeline.options import PipelineOptions
from ad_service.core.pipeline.restyle import restyle
from ad_service.core.pipeline.synthesize import synthesize
from ad_service.core.quilting.quilt import QuiltOptions
from ad_service.core.sampling import samplers
from ad_service.core.sampling.attention import AttentionCapture
from ad_service.core.sampling.samplers import Constraints, NotFinite, Plan
from blender_addon.link.records import METRICS
from tests.support.tiny_models import FAMILIES, SHIPPED, backbone, end, predict, seeded, texture, with_predict

SWATCH = texture(96, 128)
CASES = [(64, 64, True, True), (136, 72, True, False), (104, 200, False, True), (64, 88, False, False)]
"""Height, width, and whether each tiles."""

STEPS = 2
SMALL: dict[str, Any] = {"height": 64, "width": 64}


OPTIONS = PipelineOptions(
    quilt=QuiltOptions(refinements=2.0), guided=QuiltOptions(block=8, overlap=2, refinements=1.0, guide_price=8.0)
)
"""Quilts with a tenth of their refinements."""


@pytest.fixture(autouse=True)
def no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """No search for copies: most of the time of so small a job."""
    monkeypatch.setattr(metrics, "copy_share", lambda *_: 0.0)


def make(
    model: str | Model, height: int = 64, width: int = 96, options: PipelineOptions = OPTIONS, **asked: Any
) -> tuple[list[Step], Result]:
    """Run a job to its end; every job here must report in order and give a whole picture."""
    asked = {"swatch": SWATCH, "steps": STEPS, "detail": "off", "height": height, "width": width} | asked
    model = backbone(model) if isinstance(model, str) else model
    if "content" in asked:
        steps, picture = end(restyle(model, RestyleRequest(**asked), options=options))
    else:
        steps, picture = end(synthesize(model, SynthesizeRequest(**asked), options=options))
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert fractions[0] >= 0 and fractions[-1] <= 1
    assert picture.color.shape == (height, width, 3)
    assert picture.color.dtype == torch.uint8
    assert all(value == value for value in picture.metrics.values()), "no metric is NaN"
    return steps, picture


def small_window(name: str, side: int) -> Model:
    model = backbone(name)
    return replace(model, family=replace(model.family, window=side))


def stripes(height: int, width: int) -> Tensor:
    """A layout of three labels: 0 to the left, 2 to the right, and 1 in a line of 4 pixels between them."""
    layout = torch.zeros(height, width, dtype=torch.long)
    layout[:, width // 2 :] = 2
    layout[:, width // 2 - 4 : width // 2] = 1
    return layout


def three_materials() -> tuple[Tensor, Tensor]:
    """A swatch of three colors, red, green and blue, and its regions; green is 4 pixels thin."""
    regions = stripes(96, 128)
    colors = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    return (colors[regions].permute(2, 0, 1) + 0.2 * (SWATCH - 0.5)).clamp(0, 1), regions


# ---------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("name", "height", "width", "tile_y", "tile_x"),
    [(SHIPPED, *case) for case in CASES]
    + [("pocket", *CASES[1])]
    + [("sd15", *case) for case in CASES]
    + [("sd2", *case) for case in CASES[:2]]
    + [("sdxl", *case) for case in CASES[2:]],
)
def test_every_model_makes_any_size_with_any_tiling(
    name: str, height: int, width: int, tile_y: bool, tile_x: bool
) -> None:
    _, picture = make(name, height, width, tile_y=tile_y, tile_x=tile_x, steps=1)
    seams = {figure for figure in ("seam_y", "seam_x") if figure in picture.metrics}
    assert seams == {figure for figure, tile in (("seam_y", tile_y), ("seam_x", tile_x)) if tile}
    assert float(picture.color.float().std()) > 5


@pytest.mark.parametrize("family", ["pocket", "sd15"])
@pytest.mark.parametrize("method", ["optimize", "sample"])
def test_both_methods_make_a_canvas_of_several_windows(family: str, method: str) -> None:
    _, picture = make(small_window(family, 8), 72, 136, method=method, tile_x=False, steps=1)
    factor = backbone(family).family.factor
    assert picture.metrics["unet_forwards"] > (72 // factor // 8) * (136 // factor // 8)


@pytest.mark.parametrize("size", [(40, 300), (33, 70), (300, 90)])
def test_a_swatch_can_have_any_size(size: tuple[int, int]) -> None:
    make("pocket", swatch=texture(*size), steps=1)


@pytest.mark.parametrize(("family", "crops"), [("pocket", 4), ("sd15", 2)])
def test_a_swatch_larger_than_the_window_is_read_in_crops(family: str, crops: int) -> None:
    model, swatch = small_window(family, 16), texture(128, 192)
    _, picture = make(model, 64, 64, swatch=swatch, steps=1)
    assert picture.metrics["unet_forwards"] == crops + 1
    make(model, 64, 64, swatch=swatch, steps=1, maps=LabelMaps(stripes(64, 64), stripes(128, 192)))


def test_all_of_a_large_swatch_is_read_over_the_steps_of_stable_diffusion() -> None:
    """Every place of it lies in some crop of twenty steps, also the middle, and each step has each label."""
    latents = torch.arange(100.0 * 120).reshape(1, 100, 120)
    regions = torch.zeros(100, 120, dtype=torch.long)
    regions[50, 60] = 1
    draw = exemplar._recrop(latents, backbone("sd15").family, regions)
    assert draw is not None
    drawn = [draw(seeded(seed)) for seed in range(20)]
    assert all(zs.shape[1:] == (1, 64, 64) and labels is not None for zs, labels in drawn)
    assert all(bool((labels == 1).any()) for _, labels in drawn if labels is not None)
    seen = torch.zeros(100 * 120, dtype=torch.bool)
    for zs, _ in drawn:
        seen[zs.flatten().long()] = True
    assert float(seen.float().mean()) > 0.95
    assert bool(seen.view(100, 120)[30:70, 30:90].all()), "the middle is read too"
    assert not torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][0], draw(seeded(0))[0])
    assert exemplar._recrop(latents, backbone("pocket").family, None) is None, "pocket reads it once"


@pytest.mark.parametrize(("side", "steps"), [(512, 100), (520, 50)])
def test_stable_diffusion_samples_a_canvas_larger_than_its_window(side: int, steps: int) -> None:
    family = backbone("sd15").family
    method = denoise.method_of("auto", family, Shape(side // 8, 8, True, True))
    schedule = method.schedule(family)
    assert (schedule.steps, schedule.iterations) == (steps, 100 // steps)
    assert denoise.method_of("auto", backbone("pocket").family, Shape(1000, 8, True, True)).sampler is samplers.optimize
    assert backbone("sdxl").family.optimize.learning_rate == backbone("sdxl").family.sample.learning_rate == 0.015


@pytest.mark.parametrize("scale", [0.5, 2.0])
@pytest.mark.parametrize("family", ["pocket", "sd15"])
def test_the_swatch_can_have_any_scale(family: str, scale: float) -> None:
    swatch, regions = three_materials()
    make(family, 64, 72, scale=scale, swatch=swatch, maps=LabelMaps(stripes(64, 72), regions), steps=1)


def grain(picture: Tensor) -> float:
    """How different neighboring pixels are, against all: larger for finer grain."""
    return float(picture.diff(dim=2).abs().mean() / picture.std())


def test_whole_courses_of_a_wall_lie_on_the_torus() -> None:
    rows = torch.arange(192)[:, None]
    joint = (rows % 24 < 4) | ((torch.arange(192)[None, :] + 13 * (rows // 24)) % 57 < 4)
    wall = (0.5 * texture(192, 192) + torch.where(joint, 0.5, 0.0)).clamp(0, 1)
    _, picture = make(SHIPPED, 128, 128, swatch=wall, steps=1)
    waves = torch.fft.rfft(picture.color.float().mean((1, 2))).abs()[1:]
    assert int(waves.argmax()) + 1 == 5, "128 / 24 is no whole number; the nearest one is 5"
    assert float(waves[4]) > 3 * float(waves[[2, 3, 5, 6]].max())


@pytest.mark.parametrize(("side", "block"), [(8, 8), (64, 21), (128, 32), (200, 50), (1024, 64)])
def test_pieces_grow_with_the_swatch(side: int, block: int) -> None:
    assert start._quilt_options(side, None, PipelineOptions()).block == block


@pytest.mark.parametrize(("height", "width", "tile_y", "tile_x"), CASES)
@pytest.mark.parametrize("labelled", [False, True])
def test_a_quilt_of_a_large_swatch_has_larger_cells(
    height: int, width: int, tile_y: bool, tile_x: bool, labelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = []
    laid = start.source_maps.paint
    monkeypatch.setattr(start.source_maps, "paint", lambda *given: (cells.append(given[2]), laid(*given))[1])
    swatch, regions = (u[..., :100, :90] for u in (texture(120, 120), stripes(120, 120)))  # no multiples of a square
    maps = LabelMaps(stripes(height, width), regions) if labelled else None
    options = replace(OPTIONS, large_swatch=64)
    make("pocket", height, width, options, swatch=swatch, tile_y=tile_y, tile_x=tile_x, steps=1, maps=maps)
    assert cells == [2 * options.cell]


def test_a_larger_scale_makes_a_coarser_grain() -> None:
    fine, coarse = (make(SHIPPED, scale=scale, steps=1)[1].color.permute(2, 0, 1).float() for scale in (0.5, 2.0))
    assert grain(fine) > 1.5 * grain(coarse)


# ---------------------------------------------------------------------------------------------- seeds


def test_the_same_seed_gives_the_same_bytes() -> None:
    images = []
    for seed in (7, 7, 8):
        images.append(make("pocket", seed=seed, detail="pixels")[1].color)
        torch.rand(13)  # draws elsewhere do not matter
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


# ---------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("start", ["fill", "auto"])
def test_a_layout_is_obeyed(start: str) -> None:
    swatch, regions = three_materials()
    layout = stripes(64, 96).flip(1).contiguous()
    _, picture = make(SHIPPED, swatch=swatch, maps=LabelMaps(layout, regions), start=start)
    strongest = picture.color.argmax(2)
    for label, least in ((0, 0.95), (1, 0.5), (2, 0.95)):
        assert float((strongest[layout == label] == label).float().mean()) > least
    assert picture.metrics["label_agreement"] > 0.8


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_a_layout(family: str) -> None:
    swatch, regions = three_materials()
    method = "sample" if family in ("pocket", "sd2") else "optimize"
    _, picture = make(family, 72, 136, swatch=swatch, maps=LabelMaps(stripes(72, 136), regions), method=method)
    assert 0 <= picture.metrics["label_agreement"] <= 1


@pytest.mark.parametrize("size", [(16, 32), (400, 500)])
def test_a_layout_of_another_size_is_stretched_over_the_canvas(size: tuple[int, int]) -> None:
    swatch, regions = three_materials()
    halves = (torch.arange(size[0])[:, None] >= size[0] // 2).long().expand(*size) * 2
    _, picture = make(SHIPPED, 104, 72, swatch=swatch, maps=LabelMaps(halves, regions))
    strongest = picture.color.argmax(2)
    assert float((strongest[:46] == 0).float().mean()) > 0.95
    assert float((strongest[58:] == 2).float().mean()) > 0.95


def test_a_layout_stays_where_it_was_painted() -> None:
    """What has no layout is a torus without an origin; a layout has one, also along axes that tile."""
    swatch, regions = three_materials()
    layout = torch.zeros(96, 96, dtype=torch.long)
    layout[16:48, 56:88] = 2
    _, picture = make(SHIPPED, 96, 96, swatch=swatch, maps=LabelMaps(layout, regions))
    blue = (picture.color.argmax(2) == 2).float()
    assert float(blue[20:44, 60:84].mean()) > 0.95
    assert float(blue[56:].mean()) < 0.05


@pytest.mark.parametrize(
    ("family", "place", "scale"),
    [("pocket", (40, 50), 0.25), ("pocket", (99, 99), 1.0), ("pocket", (0, 99), 0.7), ("sd15", (99, 99), 1.0)],
)
def test_a_label_of_a_single_swatch_pixel_does_not_break_a_job(
    family: str, place: tuple[int, int], scale: float
) -> None:
    regions = torch.zeros(100, 100, dtype=torch.long)
    regions[place] = 1
    make(family, swatch=texture(100, 100), maps=LabelMaps(stripes(64, 96) // 2, regions), scale=scale, steps=1)


def test_a_label_lost_by_the_crop_is_named_with_the_size_after_it() -> None:
    regions = torch.zeros(101, 101, dtype=torch.long)
    regions[0, 0], regions[100, 100] = 1, 2
    palette = torch.tensor([[200, 0, 0], [0, 200, 0], [0, 0, 200]])
    words = r"#0000c8\), which no pixel of .* once the swatch is fitted to 100x100 pixels, multiples of 4"
    with pytest.raises(LabelError, match=words):
        make("pocket", swatch=texture(101, 101), maps=LabelMaps(stripes(64, 96), regions, palette))


def test_a_label_in_the_middle_of_a_large_swatch_is_read_too() -> None:
    regions = torch.zeros(256, 256, dtype=torch.long)
    regions[120:136, 120:136] = 1
    swatch, model = texture(256, 256), small_window("pocket", 16)
    for maps in (None, LabelMaps(stripes(64, 96) // 2, regions)):
        _, picture = make(model, swatch=swatch, steps=1, start="fill", maps=maps)
        passes = picture.metrics["unet_forwards"] - picture.metrics["unet_backwards"]
        assert passes >= (4 if maps is None else 5)


# ---------------------------------------------------------------------------------------------- starts and details


@pytest.mark.parametrize(("family", "method"), [("pocket", "sample"), ("sd15", "optimize")])
@pytest.mark.parametrize("start", ["noise", "fill", "quilt"])
def test_every_start_works(family: str, method: str, start: str) -> None:
    make(family, 64, 64, start=start, method=method)


def shown_of(result: Result) -> Tensor:
    assert result.source_map is not None
    return result.source_map.pixels(*result.color.shape[:2])


@pytest.mark.parametrize(("height", "width", "tile_y", "tile_x"), [(72, 136, False, True)])
def test_novelty_makes_any_size_with_a_source_map(height: int, width: int, tile_y: bool, tile_x: bool) -> None:
    _, made = make("pocket", height, width, novelty=1.0, tile_y=tile_y, tile_x=tile_x, swatch=texture(90, 122))
    y, x = shown_of(made)
    assert y.shape == (height, width)
    assert int(y.min()) >= 0 and int(y.max()) < 90 and int(x.min()) >= 0 and int(x.max()) < 122


def test_novelty_replaces_its_share_of_the_quilt() -> None:
    fixed = replace(OPTIONS, move_edge=False)
    quilt = shown_of(make("pocket", 96, 96, fixed, steps=1)[1])
    made = shown_of(make("pocket", 96, 96, fixed, steps=1, novelty=0.3)[1])
    assert float((made == quilt).all(0).float().mean()) == pytest.approx(0.7, abs=0.08)


def test_novelty_continues_no_more_than_small_pieces_of_the_swatch() -> None:
    def continued(novelty: float) -> float:
        y, x = shown_of(make("pocket", 96, 96, steps=1, novelty=novelty)[1])
        step = torch.stack([y[:, 32:] - y[:, :-32], x[:, 32:] - x[:, :-32] - 32])
        return float((step == 0).all(0).float().mean())

    assert continued(1.0) < 0.4 * continued(0.0)


def test_novelty_obeys_a_layout() -> None:
    maps = LabelMaps(stripes(96, 128), stripes(96, 128))
    _, made = make("pocket", 96, 128, steps=1, novelty=1.0, maps=maps)
    y, x = shown_of(made)
    assert float((maps.regions[y, x] == maps.layout).float().mean()) > 0.95


@pytest.mark.parametrize("detail", ["off", "decoder", "pixels", "both"])
def test_each_detail_runs_its_phases(detail: str) -> None:
    steps, _ = make("pocket", 64, 64, swatch=texture(32, 32), detail=detail)
    phases, messages = {step.phase for step in steps}, {step.message for step in steps}
    assert ("fit-decoder" in phases) == (detail in ("decoder", "both"))
    assert ("sharpen" in phases) == (detail in ("pixels", "both"))
    assert {"start", "denoise", "decode", "measure"} <= phases
    assert {"step 1 of 2", "step 2 of 2"} <= messages


def test_a_decoder_is_fitted_once_for_a_swatch_and_gives_the_same_bytes_each_time() -> None:
    model, kept, swatch = backbone("pocket"), dict[str, codec.State](), texture(32, 32)
    runs = [
        end(
            synthesize(model, SynthesizeRequest(swatch=one, height=64, width=64, steps=1, detail="both"), kept, OPTIONS)
        )
        for one in (swatch, swatch, texture(32, 32, seed=1))
    ]
    fits = [sum(step.phase == "fit-decoder" for step in steps) for steps, _ in runs]
    assert fits == [codec.FIT_STEPS + 2, 2, codec.FIT_STEPS + 2], "two for the round trips"
    assert len(kept) == 2
    (_, first), (_, again), (_, other) = runs
    assert torch.equal(first.color, again.color)
    assert first.metrics == again.metrics
    assert not torch.equal(first.color, other.color)


def test_a_fitted_decoder_reports_its_round_trip() -> None:
    swatch = texture(32, 32)
    off, fitted = (make("pocket", 64, 64, swatch=swatch, detail=detail)[1].metrics for detail in ("off", "decoder"))
    assert fitted["round_trip_psnr_fitted"] > fitted["round_trip_psnr"] + 1
    assert "round_trip_psnr" not in off


def test_results_have_every_metric_that_the_panel_shows() -> None:
    swatch, regions = three_materials()
    _, laid_out = make("pocket", 64, 64, swatch=swatch, maps=LabelMaps(stripes(64, 64), regions), detail="decoder")
    _, restyled = make("pocket", 64, 64, swatch=swatch, content=swatch, steps=1)
    names = {name for metric in METRICS for name in metric.names}
    assert names <= {*laid_out.metrics, *restyled.metrics}


def test_patch_statistics_lower_the_patch_distance() -> None:
    off, pixels = (make(SHIPPED, detail=detail)[1].metrics["patch_distance"] for detail in ("off", "pixels"))
    assert pixels < off


def test_the_defaults_of_the_shipped_model_give_a_good_texture() -> None:
    _, picture = make(SHIPPED, 128, 128, detail="auto", steps=None, preset="draft")
    assert picture.metrics["patch_distance"] < 2 * picture.metrics["swatch_halves_distance"]
    made = picture.color.permute(2, 0, 1).float() / 255
    edges = metrics.seam(made)
    assert edges.y.single.in_range and edges.x.single.in_range


@pytest.mark.parametrize(("preset", "steps"), [("draft", 1), ("standard", 2), ("fine", 4)])
def test_presets_set_the_number_of_steps(preset: str, steps: int) -> None:
    request = SynthesizeRequest(swatch=SWATCH, height=64, width=64, preset=preset)
    job = synthesize(backbone("pocket"), request)
    first = next(step for step in job if step.phase == "denoise")
    job.close()
    assert first.message == f"step 1 of {steps}"


# ---------------------------------------------------------------------------------------------- restyle

CONTENT = texture(64, 96, seed=5, tiling=True)


@pytest.mark.parametrize("method", ["auto", "sample", "preview"])
@pytest.mark.parametrize(("name", "case"), [(SHIPPED, CASES[1]), ("pocket", CASES[3]), ("sd15", CASES[2])])
def test_a_content_of_any_size_is_restyled_at_any_size(
    name: str, case: tuple[int, int, bool, bool], method: str
) -> None:
    height, width, tile_y, tile_x = case
    model = small_window(name, 16)
    _, picture = make(model, height, width, tile_y=tile_y, tile_x=tile_x, content=CONTENT, method=method, steps=1)
    assert -1 <= picture.metrics["content_correlation"] <= 1


def coarse(height: int, width: int, seed: int = 0) -> Tensor:
    """A texture that tiles, of blobs some forty pixels wide."""
    small = texture(height // 4, width // 4, seed, tiling=True)
    return resized(small, height, width, (True, True))


def test_a_higher_content_weight_keeps_more_of_the_content() -> None:
    asked: dict[str, Any] = {"content": coarse(128, 128, 5), "swatch": coarse(192, 192)}
    kept = [
        make(SHIPPED, 128, 128, content_weight=w, **asked)[1].metrics["content_correlation"] for w in (0.0, 0.05, 1.0)
    ]
    assert kept[0] + 0.2 < kept[1] < kept[2]


def test_stable_diffusion_starts_from_the_content_with_a_content_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Constraints, Tensor, Plan]] = []

    def still(
        _tape: AttentionCapture, constraints: Constraints, canvas: Tensor, plan: Plan, _: torch.Generator
    ) -> Iterator[Tensor]:
        seen.append((constraints, canvas, plan))
        yield canvas

    monkeypatch.setitem(denoise.METHODS, "optimize", denoise.Method(still, lambda family: family.optimize))
    model = backbone("sd15")
    for weight in (None, 2.0):
        make(model, 64, 96, content=CONTENT, content_weight=weight)
    assert [plan.content_weight for _, _, plan in seen] == [0.25, 2.0]
    for constraints, canvas, _ in seen:
        assert constraints.content is canvas and constraints.change_mask is None
        torch.testing.assert_close(canvas, codec.encode_canvas(model, CONTENT.roll((4, 4), (1, 2)), constraints.shape))


def test_the_shipped_model_keeps_the_contents_structure_and_the_swatchs_look() -> None:
    swatch = coarse(192, 192)
    _, picture = make(SHIPPED, 128, 128, swatch=swatch, content=coarse(128, 128, 6), detail="auto", steps=None)
    assert picture.metrics["content_correlation"] > 0.6
    assert picture.metrics["patch_distance"] < 2 * picture.metrics["swatch_halves_distance"]


@pytest.mark.parametrize("method", ["auto", "preview"])
def test_a_content_that_tiles_still_tiles(method: str) -> None:
    content = texture(128, 128, seed=9, tiling=True)
    _, picture = make(SHIPPED, 128, 128, content=content, method=method, steps=4)
    edges = metrics.seam(picture.color.permute(2, 0, 1).float() / 255)
    assert edges.y.in_range and edges.x.in_range


def test_a_restyled_content_stays_in_place() -> None:
    content = torch.zeros(3, 64, 96)
    content[:, :, 48:] = 1
    _, picture = make(SHIPPED, content=content, steps=1)
    halves = picture.color.float().mean(2).split(48, 1)
    assert float(halves[1].mean()) > float(halves[0].mean()) + 10


@pytest.mark.parametrize(
    ("preset", "method", "steps"), [("draft", "auto", 100), ("fine", "auto", 400), ("draft", "preview", 50)]
)
def test_restyling_has_the_steps_of_its_paper(preset: str, method: str, steps: int) -> None:
    request = RestyleRequest(swatch=SWATCH, **SMALL, preset=preset, method=method, content=CONTENT)
    job = restyle(backbone("sd15"), request)
    first = next(step for step in job if step.phase == "denoise")
    job.close()
    assert first.message == f"step 1 of {steps}"


# ---------------------------------------------------------------------------------------------- steps


def test_previews_are_small_pictures_of_the_canvas() -> None:
    size = (200, 104)
    steps, _ = make("pocket", *size)
    previews = [step.preview() for step in steps if step.preview is not None]
    assert len(previews) == STEPS
    for preview in previews:
        assert preview.dtype == torch.uint8 and preview.ndim == 3 and preview.shape[2] == 3
        assert max(preview.shape) <= 512
        assert preview.shape[0] * size[1] == preview.shape[1] * size[0]


def test_a_preview_looks_like_the_canvas() -> None:
    swatch, regions = three_materials()
    layout = stripes(64, 96)
    steps, _ = make(SHIPPED, 64, 96, swatch=swatch, maps=LabelMaps(layout, regions))
    preview = [step.preview for step in steps if step.preview is not None][-1]()
    strongest = preview.argmax(2)
    third = strongest.shape[1] // 3
    assert float((strongest[:, :third] == 0).float().mean()) > 0.9
    assert float((strongest[:, -third:] == 2).float().mean()) > 0.9


# ---------------------------------------------------------------------------------------------- ends before the end


def state(model: Model) -> list[Any]:
    """All that a job changes in a model while it runs."""
    decoder = [v.double().sum().item() for v in model.vae.decoder.state_dict().values()]
    norms = [m for m in model.vae.decoder.modules() if "forward" in vars(m)]
    grads = [p.requires_grad or p.grad is not None for p in [*model.vae.parameters(), *model.unet.parameters()]]
    return [[a.processor for a in self_attention_layers(model.unet)], decoder, norms, any(grads)]


@pytest.mark.parametrize("phase", ["start", "denoise", "fit-decoder", "decode", "sharpen"])
def test_a_job_dropped_between_any_two_steps_leaves_the_model_as_it_was(phase: str) -> None:
    model = backbone("pocket")
    before = state(model)
    request = SynthesizeRequest(swatch=texture(32, 32), height=64, width=64, steps=2, detail="both")
    job = synthesize(model, request, options=OPTIONS)
    assert any(step.phase == phase for step in job)
    if phase != "start":
        assert phase == "sharpen" or state(model) != before
    job.close()
    assert state(model) == before


def test_nan_ends_the_job_and_the_model_is_restored() -> None:
    model = backbone("pocket")
    broken = with_predict(model, lambda m, z, t: predict(m, z * torch.nan, t))
    before = state(model)
    with pytest.raises(NotFinite):
        make(broken)
    assert state(model) == before
