"""The benchmark: our schedule against the paper's, on the same network and weights, in the same run.

How each value is measured:

- UNet passes: windows that went forward through the network and back to the latents, as the attention capture counts
  them.
- Seconds: ours is a whole job, from the swatch's tensor to the finished picture and its metrics. The paper's is
  encoding, sampling and decoding. If that would take too long, some batches of its first step are timed, half of them
  before ours and half after, and their seconds per window are multiplied by the exact number of windows and steps;
  decoding is then left out. The report names the method. One batch runs first, untimed.
- Peak memory: on CUDA the peak that torch allocated, weights included. On Linux without CUDA the growth of the process'
  resident memory at its peak (VmHWM, reset before). Elsewhere it is not measured.
- Share of the peak: floating-point operations of the passes, counted by torch on one window with the swatch's crops on
  the meta device, divided by the seconds of sampling and by the rate of a large matrix product on this device in the
  network's number format. Ours counts the encoding of the start and of the swatch as sampling.
- Factors of the ratio, by operations: at equal steps (the paper's 50 steps with two Adam iterations on our windows, so
  that only their number differs), and fewer passes (those 50 steps against the steps of our job). The rest of the
  measured ratio is decoding, sharpening, measuring, and how fast each runs.
- Repeatable results: ours runs as a job does, with deterministic algorithms. The paper's schedule runs without them,
  as the authors' code does.
- Seam ratio and patch distance: see `core.metrics`. The paper's schedule does not make a torus, so its seam is that of
  a picture with edges. A network with random weights makes noise, whose values mean nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ad_service.bench import measure, paper_schedule, random_models
from ad_service.bench.report import IN_FULL, Report, Row, Run
from ad_service.core import metrics
from ad_service.core.backbone import codec
from ad_service.core.backbone.devices import choose_device, make_repeatable
from ad_service.core.backbone.loading import load
from ad_service.core.backbone.model import Model
from ad_service.core.canvas import Shape, windows
from ad_service.core.pipeline.exemplar import Exemplar, constraints_of
from ad_service.core.pipeline.request import Result, Step, SynthesizeRequest
from ad_service.core.pipeline.synthesize import synthesize
from ad_service.core.pipeline.transform import Transform
from ad_service.core.pixels import from_uint8, to_uint8
from ad_service.core.sampling.attention import capture_attention
from ad_service.core.steps import run
from ad_service.pocket import WEIGHTS
from ad_service.worker import image_files
from ad_service.worker.runner import device_name
from blender_addon import wire
from blender_addon.wire import WireError

Size = tuple[int, int]
"""Width and height in pixels."""

MULTIPLE = 64
"""Sizes are multiples of this: eight latents of the coarsest codec, which every UNet can halve."""

MAX_FULL_BATCHES = 100
"""The paper's schedule runs in full if it has at most this many batches of windows."""

SAMPLED_BATCHES = 4
"""Otherwise this many batches are timed."""

EXAMPLE = Path(wire.__file__).parents[1] / "examples" / "cobbles.png"
STONES = (slice(None), slice(0, 128), slice(32, 416))
"""Channels, rows and columns of the example that show one material: with two, their shares vary by chance."""

# ---------------------------------------------------------------------------------------------- cases


@dataclass(frozen=True)
class Case:
    """A model to measure, with its default sizes on a CPU and on other devices."""

    name: str
    title: str
    load: Callable[[torch.device], Model]
    on_cpu: tuple[Size, ...]
    on_gpu: tuple[Size, ...] = ((512, 512), (2048, 2048))


def _small(device: torch.device) -> Model:
    """A tenth of SD 1.5's width, with heads of the original width."""
    return random_models.random_model(
        "sd15",
        device,
        vae_channels=(16, 32, 64, 64),
        block_out_channels=(32, 64, 128, 128),
        attention_head_dim=(1, 2, 4, 4),
        cross_attention_dim=64,
    )


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case("pocket", "pocket", lambda d: load(WEIGHTS, "pocket", device=str(d)), on_cpu=((256, 256), (512, 512))),
        Case("sd15-small", "SD 1.5, a tenth as wide, random weights", _small, on_cpu=((256, 256),)),
        Case("sd15", "SD 1.5, random weights", lambda d: random_models.random_model("sd15", d), on_cpu=()),
        Case("sdxl", "SDXL, random weights", lambda d: random_models.random_model("sdxl", d), on_cpu=()),
    )
}
"""Cases without sizes for the CPU need a GPU."""


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
        cases: names of CASES; None for all that this machine can run.
        sizes: None for those of each case.
        reference_batches: batches of the paper's schedule to time, 0 for none; None: see MAX_FULL_BATCHES.
        steps: replaces our number of steps, to see how cost grows with size; the paper's schedule is then left out.
        device: a torch device name; None for the best one.
    """

    cases: Sequence[str] | None = None
    sizes: Sequence[Size] | None = None
    reference_batches: int | None = None
    steps: int | None = None
    device: str | None = None

    def chosen(self, device: torch.device) -> list[tuple[Case, Size]]:
        """Cases and sizes to measure on a device; raises WireError `invalid-parameter`."""
        for name in self.cases or ():
            if name not in CASES:
                raise WireError("invalid-parameter", f"case is {name!r}; it must be one of {', '.join(CASES)}")
            if device.type == "cpu" and self.device is None and not CASES[name].on_cpu:
                raise WireError(
                    "invalid-parameter",
                    f"the case {name} needs a GPU and this machine has none; with --device cpu it runs for hours",
                )
        for width, height in self.sizes or ():
            if min(width, height) < MULTIPLE or width % MULTIPLE or height % MULTIPLE:
                raise WireError(
                    "invalid-parameter", f"the size is {width}x{height}; both sides must be multiples of {MULTIPLE}"
                )
        cpu = device.type == "cpu"
        cases = [CASES[name] for name in self.cases or CASES if self.cases or not cpu or CASES[name].on_cpu]
        return [(case, size) for case in cases for size in self.sizes or (cpu and case.on_cpu) or case.on_gpu]

    def batches(self, count: paper_schedule.Count) -> int:
        """How many of the paper's batches run; all of them means in full."""
        if self.steps is not None:
            return 0
        if self.reference_batches is None:
            return count.batches if count.batches <= MAX_FULL_BATCHES else SAMPLED_BATCHES
        return min(self.reference_batches, count.batches)


# ---------------------------------------------------------------------------------------------- measuring


def example() -> Tensor:
    """The default swatch (3, h, w) in [0, 1]."""
    return read_swatch(EXAMPLE.read_bytes())[STONES]


def read_swatch(data: bytes) -> Tensor:
    """The swatch (3, h, w) in [0, 1] of a picture file's bytes; raises WireError `invalid-image`."""
    pixels = image_files.decode("swatch", data).pixels
    image_files.check_size("swatch", pixels, MULTIPLE)
    return from_uint8(pixels)


def bench(swatch: Tensor, options: BenchOptions, command: str, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Measure what the options choose with a swatch (3, h, w) in [0, 1]; `tell` is called with what runs now.

    Raises WireError `invalid-parameter`, and what `core` raises.
    """
    device = choose_device(options.device)
    make_repeatable(device)
    peaks: dict[torch.dtype, float] = {}
    rows = []
    loaded: tuple[Case, Model] | None = None
    for case, size in options.chosen(device):
        if loaded is None or loaded[0] is not case:
            loaded = None  # the last one goes before the next one comes
            tell(f"{case.name}: loading")
            loaded = case, case.load(device)
        model = loaded[1]
        if model.dtype not in peaks:
            peaks[model.dtype] = measure.matrix_peak(device, model.dtype)
        rows.append(_row(case, size, model, swatch, options, peaks[model.dtype], tell))
    return Report(command, device_name(device), str(torch.__version__), torch.get_num_threads(), tuple(rows))


def _row(
    case: Case,
    size: Size,
    model: Model,
    swatch: Tensor,
    options: BenchOptions,
    peak: float,
    tell: Callable[[str], None],
) -> Row:
    width, height = size
    multiple = model.family.factor * 8
    swatch = swatch[:, : swatch.shape[1] // multiple * multiple, : swatch.shape[2] // multiple * multiple]
    reference = _Reference(model, swatch, size, peak)
    request = SynthesizeRequest(swatch=swatch, height=height, width=width, steps=options.steps)
    batches = options.batches(reference.count)
    if batches:
        tell(f"{case.name} {width}x{height}: the paper's schedule, {batches} of {reference.count.batches} batches")
        reference.run(batches - batches // 2 if batches < reference.count.batches else batches)
    tell(f"{case.name} {width}x{height}: ours")
    ours, flops = _ours(model, request, peak)
    if 1 < batches < reference.count.batches:
        tell(f"{case.name} {width}x{height}: the paper's schedule again")
        reference.run(batches // 2)
    return Row(
        case.name,
        case.title,
        width,
        height,
        str(model.dtype).removeprefix("torch."),
        peak,
        ours,
        reference.result() if batches else None,
        _factors(model, request, reference.flops(), flops) if batches else {},
    )


def _factors(model: Model, request: SynthesizeRequest, theirs: int, ours: int) -> dict[str, float]:
    """What the ratio of operations (the paper's schedule to ours) is made of."""
    crops = _crops(model, request)
    shape = _shape(model, request.width, request.height, torus=True)
    spots, steps = windows(shape, model.family.window, (0, 0)), paper_schedule.STEPS
    seen = (steps + 2) * len(spots)  # the last two steps run on two grids
    references = 1 if model.family.in_context else steps * len(crops)
    each = measure.Flops.count(model, spots[0].height, spots[0].width, crops)
    equal = each.of(seen * (1 + paper_schedule.ITERATIONS) + references, seen * paper_schedule.ITERATIONS)
    return {"at_equal_steps": theirs / equal, "fewer_passes": equal / ours}


def _crops(model: Model, request: SynthesizeRequest) -> Tensor:
    """The crops (R, C, h, w) that our samplers read, without values."""
    factor = model.family.factor
    latents = torch.zeros(model.vae.config.latent_channels, *(side // factor for side in request.swatch.shape[1:]))
    exemplar = Exemplar(request.swatch, {}, Transform())
    return constraints_of(request, model.family, exemplar, latents).zs


def _ours(model: Model, request: SynthesizeRequest, peak: float) -> tuple[Run, int]:
    """A whole job, and its operations; the seconds between two steps belong to the phase of the second one."""
    if model.device.type != "cpu":
        _picture(model, replace(request, height=512, width=512, steps=1))  # kernels are loaded when first used
    with measure.memory(model.device) as memory:
        result, phases = _picture(model, request)
    side = windows(_shape(model, request.width, request.height, torus=True), model.family.window, (0, 0))[0]
    forwards, backwards = (int(result.metrics[f"unet_{way}"]) for way in ("forwards", "backwards"))
    flops = measure.Flops.count(model, side.height, side.width, _crops(model, request)).of(forwards, backwards)
    seams, distance = _judge(result.color, request.swatch)
    measured = Run(
        measured=IN_FULL if request.steps is None else f"--steps {request.steps}",
        forwards=forwards,
        backwards=backwards,
        seconds=sum(phases.values()),
        memory=memory.peak,
        peak_share=flops / phases["sampling"] / peak,
        seams=seams,
        patch_distance=distance,
        phases=phases,
    )
    return measured, flops


def _picture(model: Model, request: SynthesizeRequest) -> tuple[Result, dict[str, float]]:
    """The result of a job, and the seconds of each of its phases."""
    seconds: dict[str, float] = defaultdict(float)
    last = measure.now(model.device)

    def add(step: Step) -> None:
        nonlocal last
        now = measure.now(model.device)
        seconds["sampling" if step.phase == "denoise" else step.phase] += now - last
        last = now

    result = run(synthesize(model, request), add)
    seconds["measure"] += measure.now(model.device) - last
    return result, dict(seconds)


class _Reference:
    """The paper's schedule for one picture: in full, or some batches of windows at a time."""

    def __init__(self, model: Model, swatch: Tensor, size: Size, peak: float) -> None:
        self.model, self.swatch, self.peak = model, swatch, peak
        self.shape = _shape(model, *size, torus=False)
        self.count = paper_schedule.count(self.shape.height, self.shape.width)
        self._batches = self._windows = 0
        self._sampling = self._encoding = self._decoding = 0.0
        self._memory: int | None = None
        self._image: Tensor | None = None

    def run(self, batches: int) -> None:
        """Time this many batches after an untimed one; all of them together make the picture."""
        with not_repeatable():
            self._run(batches)

    def _run(self, batches: int) -> None:
        self._sample(codec.encode(self.model, self.swatch), 1)
        with measure.memory(self.model.device) as memory:
            began = self._now()
            z_swatch = codec.encode(self.model, self.swatch)
            encoded = self._now()
            seen, canvas = self._sample(z_swatch, batches)
            sampled = self._now()
            if canvas is not None:
                self._image = self._decode(canvas)
                self._decoding = self._now() - sampled
        self._encoding = encoded - began
        self._sampling += sampled - encoded
        self._windows += seen
        self._batches += batches
        self._memory = memory.peak if self._memory is None else max(memory.peak or 0, self._memory)

    def _now(self) -> float:
        return measure.now(self.model.device)

    def _sample(self, z_swatch: Tensor, batches: int) -> tuple[int, Tensor | None]:
        """The number of windows in the first batches, and the canvas after the very last batch."""
        generator = torch.Generator().manual_seed(0)
        seen = 0
        with capture_attention(self.model) as capture:
            steps = paper_schedule.sample(capture, z_swatch, self.shape.height, self.shape.width, generator)
            for _ in range(batches):
                seen += next(steps)
            if batches < self.count.batches:
                return seen, None
            try:
                next(steps)
            except StopIteration as end:
                return seen, end.value
        raise AssertionError("the paper's schedule has more batches than its formula")

    def _decode(self, canvas: Tensor) -> Tensor:
        """(H, W, 3) uint8."""
        factor = self.model.family.factor
        image = torch.empty(self.shape.height * factor, self.shape.width * factor, 3, dtype=torch.uint8)
        for y, x, tile in codec.decode(self.model, canvas.cpu(), self.shape):
            part = to_uint8(tile)
            image[y : y + part.shape[0], x : x + part.shape[1]] = part
        return image

    def result(self) -> Run:
        sampling = self._sampling * self.count.windows * paper_schedule.STEPS / self._windows
        phases = {"encode": self._encoding, "sampling": sampling, "decode": self._decoding}
        seams = distance = None
        if self._image is not None:
            seams, distance = _judge(self._image, self.swatch)
        return Run(
            measured=f"scaled from {self._batches} of {self.count.batches:,} batches" if seams is None else IN_FULL,
            forwards=self.count.forwards,
            backwards=self.count.backwards,
            seconds=sum(phases.values()),
            memory=self._memory,
            peak_share=self.flops() / sampling / self.peak,
            seams=seams,
            patch_distance=distance,
            phases=phases,
        )

    def flops(self) -> int:
        """Operations of the whole schedule, which reads one crop of the swatch."""
        window = paper_schedule.grid(self.shape.height, self.shape.width)[0]
        factor, side = self.model.family.factor, paper_schedule.SIDE
        h, w = (min(side, n // factor) for n in self.swatch.shape[1:])
        crop = torch.zeros(1, self.model.vae.config.latent_channels, h, w)
        each = measure.Flops.count(self.model, window.height, window.width, crop)
        return each.of(self.count.forwards, self.count.backwards)


@contextmanager
def not_repeatable() -> Iterator[None]:
    """Without deterministic algorithms inside the block."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _shape(model: Model, width: int, height: int, *, torus: bool) -> Shape:
    factor = model.family.factor
    return Shape(height // factor, width // factor, torus, torus)


def _judge(image: Tensor, swatch: Tensor) -> tuple[tuple[float, float], float]:
    """Seam ratios along y and x, and the patch distance to the swatch, of a picture (H, W, 3) uint8."""
    picture = from_uint8(image)
    edges = metrics.seam(picture)
    return (edges.y.single.ratio, edges.x.single.ratio), metrics.patch_distance(picture, swatch)
