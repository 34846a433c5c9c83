"""A job's bytes in, its result bytes out: what the core is asked for, and what becomes of what it gives or raises."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ad_service.core import Channel, GenerateRequest, RestyleRequest, Result, Step, SynthesizeRequest, labels
from ad_service.core.backbone.checkpoints import CheckpointError
from ad_service.core.backbone.codec import Decoders
from ad_service.core.sampling import samplers
from ad_service.storage.models import ModelCorrupt, ModelMissing
from ad_service.worker import runner
from ad_service.worker.engine import Outcome, Steps
from ad_service.worker.engine import Step as EngineStep
from ad_service.worker.image_files import encode_png, job_document
from ad_service.worker.runner import Runner
from blender_addon import wire
from blender_addon.wire import JobRequest, WireError
from blender_addon.wire.colors import PALETTE


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


SWATCH = png(np.random.default_rng(0).integers(0, 256, (40, 48, 3)))
RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def halves(left: tuple[int, int, int], right: tuple[int, int, int], height: int = 40, width: int = 48) -> bytes:
    """A label map of two colors, side by side."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = left, right
    return png(pixels)


@dataclass
class StubCore:
    """Stands in for models, backbones and synthesis; notes what it is asked for."""

    requests: list[Any] = field(default_factory=list)
    loaded: list[tuple[str, str]] = field(default_factory=list)
    error: BaseException | None = None
    closed: bool = False
    decoders: Decoders | None = None

    def find(self, name: str, data_dir: Path, *, allow_paths: bool) -> SimpleNamespace:
        if name not in ("pocket", "mine", "other", "words"):
            raise ModelMissing(f"there is no model {name!r}")
        return SimpleNamespace(name=name, path=Path(name), family="sd15" if name == "words" else "pocket")

    def load(self, path: Path, family: str, *, device: str, precision: str, name: str) -> SimpleNamespace:
        self.loaded.append((name, precision))
        dtype = torch.float16 if precision == "fp16" else torch.float32
        return SimpleNamespace(
            name=name, digest="d" * 64, device=torch.device(device), dtype=dtype, notes=("a note of the model",)
        )

    def synthesize(
        self, backbone: SimpleNamespace, request: SynthesizeRequest | RestyleRequest, decoders: Decoders
    ) -> Generator[Step, None, Result]:
        self.requests.append(request)
        self.decoders = decoders
        try:
            yield Step(0.5, "denoise", "step 1 of 2", lambda: torch.full((8, 8, 3), 128, dtype=torch.uint8))
            if self.error is not None:
                raise self.error
            yield Step(0.9, "decode", "decoding")
        finally:
            self.closed = True
        generator = torch.Generator().manual_seed(request.seed)
        image = torch.randint(0, 256, (request.height, request.width, 3), dtype=torch.uint8, generator=generator)
        channels = {name: _followed(channel, image) for name, channel in request.channels.items()}
        return Result({"color": image, **channels}, {"seam_x": 1.25, "endless": float("inf")}, ("a note of the core",))


def _followed(channel: Channel, image: Tensor) -> Tensor:
    """The image as a channel with as many components and bits."""
    pixels = image[..., : len(channel.pixels)]
    return pixels if channel.bits == 8 else (pixels.int() * 257).to(torch.uint16)


class UnrepeatableCore(StubCore):
    """A device that has some operation in no form that gives the same result each time."""

    def synthesize(self, *asked: Any) -> Generator[Step, None, Result]:
        result = yield from super().synthesize(*asked)
        if torch.are_deterministic_algorithms_enabled():
            raise RuntimeError("fold_cuda does not have a deterministic implementation, but you set")
        return result


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> StubCore:
    stub = StubCore()
    monkeypatch.setattr(runner.models, "find", stub.find)
    monkeypatch.setattr(runner.loading, "load", stub.load)
    monkeypatch.setattr(runner, "synthesize", stub.synthesize)
    monkeypatch.setattr(runner, "restyle", stub.synthesize)
    monkeypatch.setattr(runner, "generate", stub.synthesize)
    return stub


def run(
    pictures: dict[str, bytes] | None = None, engine: Runner | None = None, kind: str = "synthesize", **parameters: Any
) -> tuple[list[EngineStep], Outcome]:
    """All steps and the outcome of a job."""
    pictures = {"swatch": SWATCH} if pictures is None else pictures
    blobs = {hashlib.sha256(data).hexdigest(): data for data in pictures.values()}
    inputs = {name: hashlib.sha256(data).hexdigest() for name, data in pictures.items()}
    if kind != "suggest_regions":
        parameters = {"width": 72, "height": 64, **parameters}
    request = JobRequest.parse({"kind": kind, "parameters": parameters, "inputs": inputs})
    job = (engine or Runner(Path())).run(request, blobs.__getitem__, {"swatch": "bricks.png"})
    outcomes: list[Outcome] = []

    def to_the_end() -> Steps:
        outcomes.append((yield from job))
        return outcomes[0]

    return list(to_the_end()), outcomes[0]


def test_a_job_runs_without_deterministic_kernels_and_notes_it_once(
    core: StubCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "synthesize", UnrepeatableCore().synthesize)
    engine = Runner(Path())
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(2):
            outcome = run(engine=engine)[1]
            assert outcome.pictures["image"]
            assert len([note for note in outcome.notes if "same seed" in note and "fold_cuda" in note]) == 1
            torch.use_deterministic_algorithms(True)  # as another user of the process might
    finally:
        torch.use_deterministic_algorithms(False)


def failure(*arguments: Any, **keywords: Any) -> WireError:
    with pytest.raises(WireError) as caught:
        run(*arguments, **keywords)
    return caught.value


def test_the_device_is_ready_after_a_real_operation() -> None:
    ready = Runner(Path()).ready()
    assert ready.device in ("cuda", "xpu", "mps", "cpu")
    assert ready.device_name
    assert 0 <= ready.memory_free <= ready.memory_total


def test_a_swatch_becomes_a_picture_of_the_size_asked_for(core: StubCore) -> None:
    _, outcome = run(width=72, height=64)
    with Image.open(io.BytesIO(outcome.pictures["image"])) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (72, 64))


def test_the_core_gets_the_swatch_as_numbers_from_zero_to_one(core: StubCore) -> None:
    run()
    (request,) = core.requests
    expected = np.asarray(Image.open(io.BytesIO(SWATCH))).transpose(2, 0, 1) / 255
    assert request.swatch.dtype == torch.float32
    assert np.allclose(request.swatch.numpy(), expected)
    assert (request.height, request.width) == (64, 72)
    assert request.maps is None


@pytest.mark.parametrize(
    ("tile", "y", "x"), [("none", False, False), ("x", False, True), ("y", True, False), ("xy", True, True)]
)
def test_tile_sets_both_axes(core: StubCore, tile: str, y: bool, x: bool) -> None:
    run(tile=tile)
    assert (core.requests[0].tile_y, core.requests[0].tile_x) == (y, x)


def test_automatic_values_arrive_as_none_and_others_as_they_are(core: StubCore) -> None:
    names = ("strength", "steps", "iterations", "learning_rate", "content_weight")
    run()
    assert [getattr(core.requests[0], name) for name in names] == [None] * 5
    given = {"strength": 0.5, "steps": 7, "iterations": 2, "learning_rate": 0.01, "content_weight": 0.0}
    run(**given)
    assert {name: getattr(core.requests[1], name) for name in names} == given


def test_every_parameter_reaches_the_core(core: StubCore) -> None:
    run(seed=5, scale=2.0, preset="fine", detail="both", method="sample", start="quilt", novelty=0.5, precision="fp32")
    request = core.requests[0]
    assert request.novelty == 0.5
    assert (request.seed, request.scale, request.preset) == (5, 2.0, "fine")
    assert (request.detail, request.method, request.start) == ("both", "sample", "quilt")
    assert core.loaded == [("pocket", "fp32")]
    of_the_swatch = {"crop", "corners", "lens", "real_width", "normal_format"}
    of_the_result = {"estimate_maps", "normal_strength"}
    of_the_model = {"model", "precision", "tile"}
    reached = set(SynthesizeRequest.__dataclass_fields__) | of_the_model | of_the_swatch | of_the_result
    assert {parameter.name for parameter in wire.SYNTHESIZE.parameters} <= reached


def test_steps_come_in_order_with_previews_on_demand(core: StubCore) -> None:
    steps, _ = run()
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(fractions)
    assert "Step 1 of 2" in [step.message for step in steps]
    (preview,) = [step.preview for step in steps if step.preview]
    with Image.open(io.BytesIO(preview())) as image:
        assert (image.format, image.size) == ("JPEG", (8, 8))


def test_maps_go_to_the_core_as_channels_and_come_back_as_outputs(core: StubCore) -> None:
    roughness = png(np.random.default_rng(1).integers(0, 256, (40, 48)))
    height = encode_png(np.random.default_rng(2).integers(0, 65536, (40, 48, 1), np.uint16), {})
    normal = png(np.full((40, 48, 3), (128, 128, 255)))
    maps = {"map:roughness": roughness, "map:height": height, "map:normal": normal}
    _, outcome = run({"swatch": SWATCH, **maps})
    channels = core.requests[0].channels
    assert {name: (c.kind, c.bits, len(c.pixels)) for name, c in channels.items()} == {
        "roughness": ("data", 8, 1),
        "height": ("height", 16, 1),
        "normal": ("normal", 8, 3),
    }
    assert set(outcome.pictures) == {"image", *maps}
    assert outcome.origins == {"roughness": "followed", "height": "followed", "normal": "followed"}
    for data in outcome.pictures.values():
        document = job_document("map", data)
        assert set(JobRequest.parse(document).inputs) == {"swatch", *maps}
        assert document["origins"]["height"] == "followed"
    assert Image.open(io.BytesIO(outcome.pictures["map:height"])).mode == "I;16"
    assert any("format of the normals" in note for note in outcome.notes)


def test_maps_that_are_missing_are_estimated_from_the_result(core: StubCore) -> None:
    roughness = png(np.random.default_rng(1).integers(0, 256, (40, 48)))
    _, outcome = run({"swatch": SWATCH, "map:roughness": roughness}, estimate_maps="missing")
    assert outcome.origins == {"roughness": "followed", "normal": "estimated", "height": "estimated"}
    size = Image.open(io.BytesIO(outcome.pictures["image"])).size
    for name in ("normal", "height"):
        assert Image.open(io.BytesIO(outcome.pictures[f"map:{name}"])).size == size
        assert job_document("map", outcome.pictures[f"map:{name}"])["origins"][name] == "estimated"


def test_the_result_carries_its_job_and_what_it_was_made_with(core: StubCore) -> None:
    _, outcome = run(seed=9)
    document = job_document("image", outcome.pictures["image"])
    assert JobRequest.parse(document).parameters["seed"] == 9
    assert document["files"] == {"swatch": "bricks.png"}
    assert document["made_with"]["model"] == "pocket"
    assert document["made_with"]["model_sha256"] == "d" * 64
    assert document["metrics"] == {"seam_x": 1.25, "scale": 1.0}
    assert document["used"] == {"crop": [0, 0, 48, 40], "scale": 1.0, "sentence": "Uses all of 48 x 40, unscaled"}


def test_the_same_job_gives_the_same_bytes_and_another_seed_others(core: StubCore) -> None:
    first, again, other = (run(seed=seed)[1].pictures["image"] for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_infinite_metrics_are_left_out_and_all_notes_are_kept(core: StubCore) -> None:
    pixels = np.full((40, 48, 4), 255)
    pixels[:4, :, 3] = 0
    pixels[4:, :, :3] = np.random.default_rng(0).integers(0, 256, (36, 48, 3))
    _, outcome = run({"swatch": png(pixels)})
    assert outcome.metrics == {"seam_x": 1.25, "scale": 1.0}
    clear, used, *others = outcome.notes
    assert "10% of the swatch is transparent" in clear and used == "Uses 48 x 36 of 48 x 40, unscaled"
    assert others == ["a note of the model", "a note of the core"]


# ---------------------------------------------------------------------------------------------- regions and layout


def test_a_layout_is_matched_to_the_regions_by_color(core: StubCore) -> None:
    run({"swatch": SWATCH, "regions": halves(RED, GREEN), "layout": halves(GREEN, RED, 64, 72)})
    request = core.requests[0]
    assert request.maps.regions.shape == (40, 48) and request.maps.layout.shape == (64, 72)
    assert request.maps.regions[0, 0] == request.maps.layout[0, -1] != request.maps.regions[0, -1]


def test_regions_of_another_size_are_fitted_to_the_swatch(core: StubCore) -> None:
    run({"swatch": SWATCH, "regions": halves(RED, GREEN, 80, 96), "layout": halves(GREEN, RED)})
    regions = core.requests[0].maps.regions
    assert regions is not None and regions.shape == (40, 48)
    assert len(regions[:, :24].unique()) == len(regions[:, 24:].unique()) == 1


def test_a_region_of_few_pixels_is_not_lost_in_a_smaller_swatch(core: StubCore) -> None:
    pixels = np.full((400, 480, 3), RED)
    pixels[100:104, 200:204] = GREEN
    run({"swatch": SWATCH, "regions": png(pixels), "layout": halves(GREEN, RED)})
    regions = core.requests[0].maps.regions
    assert regions is not None and len(regions.unique()) == 2


def test_a_photograph_as_regions_is_an_error(core: StubCore) -> None:
    photograph = png(np.random.default_rng(1).integers(0, 256, (400, 480, 3)))
    error = failure({"swatch": SWATCH, "regions": photograph, "layout": halves(GREEN, RED)})
    assert error.code == "invalid-labels"
    assert "of the regions are near" in error.detail


def test_regions_of_another_shape_are_refused_with_both_sizes(core: StubCore) -> None:
    error = failure({"swatch": SWATCH, "regions": halves(RED, GREEN, 48, 40), "layout": halves(GREEN, RED)})
    assert error.code == "invalid-labels"
    assert "40x48" in error.detail and "48x40" in error.detail


def test_a_layout_with_an_unknown_color_is_refused_and_the_color_named(core: StubCore) -> None:
    error = failure({"swatch": SWATCH, "regions": halves(RED, GREEN), "layout": halves(BLUE, RED)})
    assert error.code == "invalid-labels"
    assert "#0000c8" in error.detail


# ---------------------------------------------------------------------------------------------- restyle


def restyled(core: StubCore, content: bytes, **parameters: Any) -> RestyleRequest:
    """What the core is asked for, for a content."""
    run({"swatch": SWATCH, "content": content}, kind="restyle", **{"width": 0, "height": 0, **parameters})
    return core.requests[-1]


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(96, 128, (96, 128)), (99, 101, (96, 104)), (40, 33, (64, 64)), (16384, 32, (16384, 64))],
)
def test_a_restyling_has_the_nearest_accepted_size_of_its_content(
    core: StubCore, height: int, width: int, expected: tuple[int, int]
) -> None:
    request = restyled(core, png(np.zeros((height, width, 3))), width=0)
    assert (request.height, request.width) == expected


def test_each_side_of_a_restyling_can_be_asked_for(core: StubCore) -> None:
    request = restyled(core, png(np.zeros((96, 128, 3))), width=256)
    assert (request.height, request.width) == (96, 256)


def test_the_core_gets_the_content_whole_beside_the_swatch(core: StubCore) -> None:
    request = restyled(core, png(np.full((96, 128, 3), 255)), width=256, method="preview")
    assert request.content is not None and request.content.shape == (3, 96, 128)
    assert bool((request.content == 1).all())
    assert request.swatch.shape == (3, 40, 48)
    assert request.method == "preview"


def test_a_tiny_content_is_refused_with_its_size(core: StubCore) -> None:
    error = failure({"swatch": SWATCH, "content": png(np.zeros((31, 40, 3)))}, kind="restyle")
    assert error.code == "invalid-image"
    assert error.detail == "content is 40x31 pixels; each side must have at least 32 pixels"


# ---------------------------------------------------------------------------------------------- what goes wrong


def test_a_tiny_swatch_is_refused_with_its_size(core: StubCore) -> None:
    error = failure({"swatch": png(np.zeros((1, 1, 3)))})
    assert error.code == "invalid-image"
    assert error.detail == "swatch is 1x1 pixels; each side must have at least 32 pixels"


def test_a_file_that_is_no_picture_is_refused_before_a_model_is_loaded(core: StubCore) -> None:
    assert failure({"swatch": b"hello"}).code == "invalid-image"
    assert core.loaded == []


def test_an_unknown_model_is_missing(core: StubCore) -> None:
    error = failure(model="nobody")
    assert error.code == "model-missing"
    assert "'nobody'" in error.detail


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (samplers.NotFinite("at step 3"), "nan-output"),
        (labels.LabelError("label 3 has no pixel"), "invalid-labels"),
        (CheckpointError("unet is missing"), "model-corrupt"),
        (ModelCorrupt("bad sha256"), "model-corrupt"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB\nmore"), "out-of-memory"),
        (MemoryError(), "out-of-memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out-of-memory"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors"), "out-of-memory"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "out-of-memory"),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nCUDA kernel"), "device-unavailable"),
    ],
)
def test_errors_of_the_core_become_errors_of_the_contract(core: StubCore, error: BaseException, code: str) -> None:
    core.error = error
    told = failure()
    assert told.code == code
    assert told.detail and "\n" not in told.detail


def test_an_unexpected_exception_is_not_hidden(core: StubCore) -> None:
    core.error = RuntimeError("shapes (3, 4) and (5, 6) do not fit")
    with pytest.raises(RuntimeError, match="do not fit"):
        run()


def test_a_job_that_is_dropped_closes_the_core(core: StubCore) -> None:
    sha = hashlib.sha256(SWATCH).hexdigest()
    request = JobRequest.parse({"kind": "synthesize", "inputs": {"swatch": sha}})
    job = Runner(Path()).run(request, lambda _: SWATCH)
    while "Step" not in next(job).message:
        pass
    job.close()
    assert core.closed


def test_fitted_decoders_are_kept_in_the_data_folder(core: StubCore, tmp_path: Path) -> None:
    run(engine=Runner(tmp_path))
    assert core.decoders is not None
    core.decoders["a" * 64] = {"weight": torch.ones(2)}
    assert [path.parent for path in tmp_path.rglob("*.safetensors")] == [tmp_path / "decoders"]


# ---------------------------------------------------------------------------------------------- models kept loaded


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def free(part: float) -> None:
        monkeypatch.setattr(runner, "_memory", lambda device: (int(part * 100), 100))

    return free


def test_a_model_is_loaded_once_for_many_jobs(core: StubCore, memory: Callable[[float], None]) -> None:
    memory(0.9)
    engine = Runner(Path())
    for model in ("pocket", "mine", "pocket", "mine"):
        run(engine=engine, model=model)
    assert core.loaded == [("pocket", "auto"), ("mine", "auto")]


def test_a_released_model_is_loaded_again(core: StubCore, memory: Callable[[float], None]) -> None:
    memory(0.9)
    engine = Runner(Path())
    run(engine=engine)
    engine.release()
    run(engine=engine)
    assert core.loaded == [("pocket", "auto")] * 2


def test_the_model_used_longest_ago_makes_room(core: StubCore, memory: Callable[[float], None]) -> None:
    memory(0.9)
    engine = Runner(Path())
    for model in ("pocket", "mine", "pocket", "other", "pocket", "mine"):
        run(engine=engine, model=model)
    assert [name for name, _ in core.loaded] == ["pocket", "mine", "other", "mine"]


def test_only_one_model_stays_where_memory_is_short(core: StubCore, memory: Callable[[float], None]) -> None:
    memory(0.1)
    engine = Runner(Path())
    for model in ("pocket", "mine", "pocket"):
        run(engine=engine, model=model)
    assert [name for name, _ in core.loaded] == ["pocket", "mine", "pocket"]


def test_words_reach_the_core_with_and_without_a_swatch(core: StubCore) -> None:
    for pictures in ({"swatch": SWATCH}, {}):
        _, outcome = run(pictures, kind="generate", model="words", prompt="moss", negative_prompt="text", guidance=5.0)
        request = core.requests[-1]
        assert isinstance(request, GenerateRequest)
        assert (request.prompts, request.negative_prompt, request.guidance) == (("moss",), "text", 5.0)
        assert (request.width, request.height, request.swatch.numel() > 0) == (72, 64, bool(pictures))
        assert ("scale" in outcome.metrics) is bool(pictures)
        assert job_document("result", outcome.pictures["image"])["parameters"]["prompt"] == "moss"


def test_a_layout_says_where_each_prompt_is(core: StubCore) -> None:
    layout = halves(PALETTE[1], PALETTE[0])
    run({"layout": layout}, kind="generate", model="words", prompt="old", region_prompts="moss | sand")
    request = core.requests[-1]
    assert request.prompts == ("moss, old", "sand, old")
    assert request.layout[0, 0] == 1 and request.layout[0, -1] == 0


@pytest.mark.parametrize(
    ("pictures", "parameters", "sentence"),
    [
        ({}, {"model": "pocket", "prompt": "moss"}, "the model pocket reads no prompts"),
        ({}, {"prompt": "moss", "region_prompts": "a|b"}, "without a layout there are none"),
        ({"layout": halves(PALETTE[0], PALETTE[1])}, {"prompt": "moss"}, "a layout needs one prompt for each"),
        ({}, {"prompt": " "}, "the prompt is empty and guidance is 7"),
    ],
)
def test_words_that_cannot_be_used_are_refused_before_a_model_is_loaded(
    core: StubCore, pictures: dict[str, bytes], parameters: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(WireError, match=sentence) as caught:
        run(pictures, kind="generate", **{"model": "words", **parameters})
    assert caught.value.code == "invalid-parameter"
    assert core.loaded == []


def raise_once(core: StubCore, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next texture fails with this error, and those after it do not."""
    whole = core.synthesize

    def once(*arguments: Any) -> Any:
        monkeypatch.setattr(runner, "synthesize", whole)
        raise error
        yield

    monkeypatch.setattr(runner, "synthesize", once)


def test_a_texture_with_nan_is_made_again_in_fp32(core: StubCore, monkeypatch: pytest.MonkeyPatch) -> None:
    raise_once(core, samplers.NotFinite("NaN"), monkeypatch)
    _, outcome = run(precision="fp16")
    assert core.loaded == [("pocket", "fp16"), ("pocket", "fp32")]
    assert any("float16" in note and "fp32" in note for note in outcome.notes)
    document = job_document("result", outcome.pictures["image"])
    assert document["made_with"]["precision"] == "float32"


def test_the_other_model_is_let_go_of_when_memory_runs_out(
    core: StubCore, memory: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory(0.9)
    engine = Runner(Path())
    for model in ("mine", "pocket"):
        run(engine=engine, model=model)
    raise_once(core, torch.OutOfMemoryError("CUDA out of memory"), monkeypatch)
    _, outcome = run(engine=engine, model="pocket")
    assert [name for name, _ in core.loaded] == ["mine", "pocket", "pocket"]
    assert any("was unloaded" in note for note in outcome.notes)
    raise_once(core, torch.OutOfMemoryError("CUDA out of memory"), monkeypatch)
    with pytest.raises(WireError, match="out of memory"):  # no other model could be unloaded
        run(engine=engine, model="pocket")


def test_regions_are_suggested_without_a_model(core: StubCore) -> None:
    pixels = np.zeros((40, 48, 3), np.uint8)
    pixels[:, :30], pixels[:, 30:] = (150, 60, 50), (60, 140, 50)
    steps, outcome = run({"swatch": png(pixels)}, kind="suggest_regions", parts=2)
    found = np.asarray(Image.open(io.BytesIO(outcome.pictures["image"])))
    assert core.loaded == []
    assert len(np.unique(found[:, :29].reshape(-1, 3), axis=0)) == 1
    assert (found[:, 31:] != found[0, 0]).any(-1).all()
    assert found.shape == (40, 48, 3)
    assert [step.phase for step in steps] == ["read", "start", "write"]
    document = job_document("result", outcome.pictures["image"])
    assert document["parameters"] == {"parts": 2}
    assert "model" not in document["made_with"]
