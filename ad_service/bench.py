"""The benchmark: ours beside the paper's own schedule, on the same network and weights, in the same run.

What is measured, and how:

- UNet passes: windows that went through the network, there (forwards) and back to the latents (backwards), as the tape
  counts them.
- Seconds: ours is a whole job as a user runs it, from the swatch's tensor to the finished picture and its figures. The
  paper's is encoding, sampling and decoding. Where that would take too long, some batches of windows of its first step
  are timed, half of them before ours and half after, and their seconds a window multiplied by the exact number of
  windows and steps; decoding is then left out. The report says which it is. One batch goes first, untimed.
- Peak memory: on CUDA the most that torch had allocated, weights included. On Linux without CUDA what the process'
  resident memory grew by at its highest (VmHWM, reset before). Elsewhere it is not measured.
- Share of the peak: floating-point operations of the passes, counted by torch on one window, by the seconds of sampling
  and by what a large matrix product reaches here in the network's number format. Ours counts the encoding of the start
  and of the swatch as sampling.
- Seam ratio and patch distance: see `core.metrics`. The paper's schedule makes no torus, so its seam is that of a
  picture with edges. A random network draws noise: there, these two say nothing of quality.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ad_service import models, paper, pictures, untrained
from ad_service.core import codec, metrics
from ad_service.core.backbones import Backbone, choose_device, load
from ad_service.core.canvas import Shape, windows
from ad_service.core.features import capture
from ad_service.core.synthesis import Picture, Request, synthesise
from ad_service.runner import device_name
from blender_addon import wire
from blender_addon.wire import WireError

Size = tuple[int, int]
"""Width and height in pixels."""

MULTIPLE = 64
"""Sizes are multiples of it: eight latents of the coarsest codec, which every UNet can halve."""

FEW = 100
"""The paper's schedule is run whole where it has at most so many batches of windows."""

BATCHES = 4
"""Otherwise so many are timed."""

IN_FULL = "measured in full"

SWATCH = Path(wire.__file__).parent / "examples" / "cobbles.png"

# ---------------------------------------------------------------------------------------------- cases


@dataclass(frozen=True)
class Case:
    """A model to measure, and the sizes that it is measured at unless others are asked for, on a CPU and elsewhere."""

    name: str
    title: str
    load: Callable[[torch.device], Backbone]
    on_cpu: tuple[Size, ...]
    on_gpu: tuple[Size, ...] = ((512, 512), (2048, 2048))


def _small(device: torch.device) -> Backbone:
    """A tenth of SD 1.5's width, heads as wide as its own."""
    return untrained.backbone(
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
        Case(
            "pocket", "pocket", lambda d: load(models.POCKET, "pocket", device=str(d)), on_cpu=((256, 256), (512, 512))
        ),
        Case("sd15-small", "SD 1.5, a tenth as wide, random weights", _small, on_cpu=((256, 256),)),
        Case("sd15", "SD 1.5, random weights", lambda d: untrained.backbone("sd15", d), on_cpu=()),
        Case("sdxl", "SDXL, random weights", lambda d: untrained.backbone("sdxl", d), on_cpu=()),
    )
}
"""Those without sizes for the CPU need a GPU."""


@dataclass(frozen=True)
class Options:
    """What to measure. None: all that this machine can, at the sizes of each case.

    `reference_batches` of the paper's schedule are timed, none of them with 0; None: see FEW. `steps` replaces
    ours' own number of steps, to see how cost grows with size; the paper's schedule is then left out.
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
                raise WireError("invalid-parameter", f"there is no case {name!r}; there are {', '.join(CASES)}")
            if device.type == "cpu" and self.device is None and not CASES[name].on_cpu:
                raise WireError(
                    "invalid-parameter",
                    f"the case {name} needs a GPU and this machine has none; with --device cpu it runs for hours",
                )
        for width, height in self.sizes or ():
            if min(width, height) < MULTIPLE or width % MULTIPLE or height % MULTIPLE:
                raise WireError("invalid-parameter", f"the size {width}x{height} is not in multiples of {MULTIPLE}")
        cpu = device.type == "cpu"
        cases = [CASES[name] for name in self.cases or CASES if self.cases or not cpu or CASES[name].on_cpu]
        return [(case, size) for case in cases for size in self.sizes or (cpu and case.on_cpu) or case.on_gpu]

    def batches(self, count: paper.Count) -> int:
        """How many of the paper's batches are run; all of them means in full."""
        if self.steps is not None:
            return 0
        if self.reference_batches is None:
            return count.batches if count.batches <= FEW else BATCHES
        return min(self.reference_batches, count.batches)


# ---------------------------------------------------------------------------------------------- what comes of it


@dataclass(frozen=True)
class Run:
    """One schedule, measured, or scaled from a part of it.

    `memory` is in bytes, `phases` are seconds, `seams` the ratios along y and x. What was not measured is None.
    """

    measured: str
    forwards: int
    backwards: int
    seconds: float
    memory: int | None
    peak_share: float
    seams: tuple[float, float] | None
    patch_distance: float | None
    phases: dict[str, float]


@dataclass(frozen=True)
class Row:
    """A case at a size: ours, and the paper's schedule if it was run."""

    case: str
    title: str
    width: int
    height: int
    dtype: str
    peak_flops: float
    ours: Run
    reference: Run | None

    @property
    def ratio(self) -> float | None:
        """How many times faster ours is."""
        return None if self.reference is None else self.reference.seconds / self.ours.seconds


@dataclass(frozen=True)
class Report:
    """All that was measured, and where."""

    command: str
    device: str
    torch: str
    threads: int
    rows: tuple[Row, ...]

    def json(self) -> str:
        document = asdict(self)
        for row, measured in zip(document["rows"], self.rows, strict=True):
            row["ratio"] = measured.ratio
        return json.dumps(document, indent=1) + "\n"

    @classmethod
    def read(cls, text: str) -> Report:
        """The report that `json` wrote."""
        document: dict[str, Any] = json.loads(text)
        rows = []
        for row in document.pop("rows"):
            del row["ratio"]
            runs = {name: row[name] and _run(row[name]) for name in ("ours", "reference")}
            rows.append(Row(**{**row, **runs}))
        return cls(**document, rows=tuple(rows))

    def markdown(self) -> str:
        """The command, the table and where it was measured. Without the paper's schedule the table is of growth."""
        compared = any(row.reference for row in self.rows)
        lines = [f"    {self.command}", "", *(_comparison(self.rows) if compared else _growth(self.rows)), ""]
        formats = sorted({f"{row.title} in {row.dtype}: {row.peak_flops / 1e9:,.0f} GFLOP/s" for row in self.rows})
        where = f"{self.device}, {self.threads} thread{'s' * (self.threads != 1)}, torch {self.torch}"
        return "\n".join([*lines, f"{where}. Peak of a matrix product: {'; '.join(formats)}."]) + "\n"


def _run(document: dict[str, Any]) -> Run:
    seams = document["seams"]
    return Run(**{**document, "seams": seams and tuple(seams)})


def _comparison(rows: Sequence[Row]) -> Iterator[str]:
    yield (
        "| model | size | schedule | passes forward + back | seconds | of these sampling | ours is faster "
        "| memory | of peak | seam y, x | patch distance |"
    )
    yield "|---" * 11 + "|"
    for row in rows:
        head = f"| {row.title} | {row.width}x{row.height} |"
        if row.reference is not None:
            yield f"{head} paper, {_cost(row.reference)} | | {_quality(row.reference)} |"
            head = "| | |"
        faster = "" if row.ratio is None else f"**{row.ratio:.3g} times**"
        yield f"{head} ours, {_cost(row.ours)} | {faster} | {_quality(row.ours)} |"


def _growth(rows: Sequence[Row]) -> Iterator[str]:
    """Each size beside the first one of its case."""
    yield (
        "| model | size | schedule | passes forward + back | seconds | to the first | of these sampling "
        "| memory | to the first |"
    )
    yield "|---" * 9 + "|"
    first: dict[str, Run] = {}
    for row in rows:
        ours, one = row.ours, first.setdefault(row.case, row.ours)
        memory = "" if ours.memory is None or not one.memory else f"{ours.memory / one.memory:.2f}"
        yield (
            f"| {row.title} | {row.width}x{row.height} | ours, {ours.measured} | {_passes(ours)} "
            f"| {_seconds(ours.seconds)} | {ours.seconds / one.seconds:.2f} | {_seconds(ours.phases['sampling'])} "
            f"| {_megabytes(ours)} | {memory} |"
        )


def _cost(run: Run) -> str:
    return f"{run.measured} | {_passes(run)} | {_seconds(run.seconds)} | {_seconds(run.phases['sampling'])}"


def _passes(run: Run) -> str:
    return f"{run.forwards:,} + {run.backwards:,}"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f}" if seconds < 100 else f"{seconds:,.0f}"


def _megabytes(run: Run) -> str:
    return "" if run.memory is None else f"{run.memory / 2**20:,.0f} MB"


def _quality(run: Run) -> str:
    seams = "" if run.seams is None else ", ".join(f"{ratio:.2f}" for ratio in run.seams)
    distance = "" if run.patch_distance is None else f"{run.patch_distance:.4f}"
    return f"{_megabytes(run)} | {run.peak_share:.0%} | {seams} | {distance}"


# ---------------------------------------------------------------------------------------------- measuring


def read_swatch(data: bytes) -> Tensor:
    """The swatch (3, h, w) in [0, 1] of a picture file's bytes; raises WireError `invalid-image`."""
    pixels = pictures.decode("swatch", data).pixels
    pictures.check_size("swatch", pixels, MULTIPLE)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


def bench(swatch: Tensor, options: Options, command: str, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Measure all that the options choose, with a swatch (3, h, w) in [0, 1]; `tell` hears what runs now.

    Raises WireError `invalid-parameter`, and what `core` raises.
    """
    device = choose_device(options.device)
    peaks: dict[torch.dtype, float] = {}
    rows = []
    loaded: tuple[Case, Backbone] | None = None
    for case, size in options.chosen(device):
        if loaded is None or loaded[0] is not case:
            loaded = None  # the last one goes before the next one comes
            tell(f"{case.name}: loading")
            loaded = case, case.load(device)
        backbone = loaded[1]
        if backbone.dtype not in peaks:
            peaks[backbone.dtype] = matrix_peak(device, backbone.dtype)
        rows.append(_row(case, size, backbone, swatch, options, peaks[backbone.dtype], tell))
    return Report(command, device_name(device), str(torch.__version__), torch.get_num_threads(), tuple(rows))


def _row(
    case: Case,
    size: Size,
    backbone: Backbone,
    swatch: Tensor,
    options: Options,
    peak: float,
    tell: Callable[[str], None],
) -> Row:
    width, height = size
    multiple = backbone.family.factor * 8
    swatch = swatch[:, : swatch.shape[1] // multiple * multiple, : swatch.shape[2] // multiple * multiple]
    reference = _Reference(backbone, swatch, size, peak)
    batches = options.batches(reference.count)
    if batches:
        tell(f"{case.name} {width}x{height}: the paper's schedule, {batches} of {reference.count.batches} batches")
        reference.run(batches - batches // 2 if batches < reference.count.batches else batches)
    tell(f"{case.name} {width}x{height}: ours")
    ours = _ours(backbone, Request(swatch, height, width, steps=options.steps), peak)
    if 1 < batches < reference.count.batches:
        tell(f"{case.name} {width}x{height}: the paper's schedule again")
        reference.run(batches // 2)
    return Row(
        case.name,
        case.title,
        width,
        height,
        str(backbone.dtype).removeprefix("torch."),
        peak,
        ours,
        reference.result() if batches else None,
    )


def _ours(backbone: Backbone, request: Request, peak: float) -> Run:
    """A whole job; the seconds between two steps belong to what the second one says."""
    if backbone.device.type != "cpu":
        _picture(backbone, replace(request, height=512, width=512, steps=1))  # kernels are loaded when first used
    with _memory(backbone.device) as memory:
        picture, phases = _picture(backbone, request)
    side = windows(_shape(backbone, request.width, request.height, torus=True), backbone.family.window, (0, 0))[0]
    forwards, backwards = (int(picture.metrics[f"unet_{way}"]) for way in ("forwards", "backwards"))
    flops = Flops.count(backbone, side.height, side.width).of(forwards, backwards)
    seams, distance = _judge(picture.image, request.swatch)
    return Run(
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


def _picture(backbone: Backbone, request: Request) -> tuple[Picture, dict[str, float]]:
    phases: dict[str, float] = defaultdict(float)
    job = synthesise(backbone, request)
    began = _now(backbone.device)
    while True:
        try:
            message = next(job).message
        except StopIteration as end:
            phases["measuring"] += _now(backbone.device) - began
            return end.value, dict(phases)
        now = _now(backbone.device)
        phases["sampling" if message.startswith("step ") else message] += now - began
        began = now


class _Reference:
    """The paper's schedule for one picture: run whole, or some batches of windows at a time."""

    def __init__(self, backbone: Backbone, swatch: Tensor, size: Size, peak: float) -> None:
        self.backbone, self.swatch, self.peak = backbone, swatch, peak
        self.shape = _shape(backbone, *size, torus=False)
        self.count = paper.count(self.shape.height, self.shape.width)
        self._batches = self._windows = 0
        self._sampling = self._encoding = self._decoding = 0.0
        self._memory: int | None = None
        self._image: Tensor | None = None

    def run(self, batches: int) -> None:
        """Time so many batches after an untimed one; all of them make the picture."""
        self._sample(codec.encode(self.backbone, self.swatch), 1)
        with _memory(self.backbone.device) as memory:
            began = self._now()
            z_swatch = codec.encode(self.backbone, self.swatch)
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
        return _now(self.backbone.device)

    def _sample(self, z_swatch: Tensor, batches: int) -> tuple[int, Tensor | None]:
        """How many windows were in the first batches, and the canvas after the last one of all."""
        generator = torch.Generator().manual_seed(0)
        seen = 0
        with capture(self.backbone) as tape:
            steps = paper.sample(tape, z_swatch, self.shape.height, self.shape.width, generator)
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
        factor = self.backbone.family.factor
        image = torch.empty(self.shape.height * factor, self.shape.width * factor, 3, dtype=torch.uint8)
        for y, x, tile in codec.decode(self.backbone, canvas.cpu(), self.shape):
            part = (tile.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
            image[y : y + part.shape[0], x : x + part.shape[1]] = part
        return image

    def result(self) -> Run:
        sampling = self._sampling * self.count.windows * paper.STEPS / self._windows
        phases = {"encoding": self._encoding, "sampling": sampling, "decoding": self._decoding}
        window = paper.grid(self.shape.height, self.shape.width)[0]
        flops = Flops.count(self.backbone, window.height, window.width).of(self.count.forwards, self.count.backwards)
        seams = distance = None
        if self._image is not None:
            seams, distance = _judge(self._image, self.swatch)
        return Run(
            measured=f"scaled from {self._batches} of {self.count.batches:,} batches" if seams is None else IN_FULL,
            forwards=self.count.forwards,
            backwards=self.count.backwards,
            seconds=sum(phases.values()),
            memory=self._memory,
            peak_share=flops / sampling / self.peak,
            seams=seams,
            patch_distance=distance,
            phases=phases,
        )


def _shape(backbone: Backbone, width: int, height: int, *, torus: bool) -> Shape:
    factor = backbone.family.factor
    return Shape(height // factor, width // factor, torus, torus)


def _judge(image: Tensor, swatch: Tensor) -> tuple[tuple[float, float], float]:
    """Seam ratios along y and x, and the patch distance to the swatch, of a picture (H, W, 3) uint8."""
    picture = image.permute(2, 0, 1).float() / 255
    edges = metrics.seam(picture)
    return (edges.y.single.ratio, edges.x.single.ratio), metrics.patch_distance(picture, swatch)


def _now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done what it was told to."""
    if device.type in ("cuda", "xpu", "mps"):
        getattr(torch, device.type).synchronize()
    return time.perf_counter()


# ---------------------------------------------------------------------------------------------- operations and memory


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of one window: a bare forward pass, and the loss' gradient there and back."""

    forward: int
    gradient: int

    @classmethod
    def count(cls, backbone: Backbone, height: int, width: int) -> Flops:
        """Counted by torch on a window of that many latents, with a swatch as large; products alone, not softmax."""
        z = torch.zeros(1, backbone.vae.config.latent_channels, height, width, device=backbone.device)
        with capture(backbone) as tape, sdpa_kernel(SDPBackend.MATH):  # the counter knows no fused attention of the CPU
            reference = tape.reference(z, 0)
            with FlopCounterMode(display=False) as forward, torch.no_grad():
                tape.observe(z, 1, reference)
            with FlopCounterMode(display=False) as gradient:
                paper.gradient(tape, z.requires_grad_().clone(), 1, reference)  # its hooks refuse a leaf
        return cls(forward.get_total_flops(), gradient.get_total_flops())

    def of(self, forwards: int, backwards: int) -> int:
        """Of so many passes; whatever goes back has gone there with the loss."""
        return (forwards - backwards) * self.forward + backwards * self.gradient


def matrix_peak(device: torch.device, dtype: torch.dtype, seconds: float = 1.0) -> float:
    """Operations a second of a large square matrix product, the best of several."""
    n = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    best, end = math.inf, _now(device) + seconds
    a @ b
    while (began := _now(device)) < end:
        a @ b
        best = min(best, _now(device) - began)
    return 2 * n**3 / best


@dataclass
class _Memory:
    """`peak` in bytes once the block has ended; None where it cannot be measured."""

    peak: int | None = None


@contextmanager
def _memory(device: torch.device) -> Iterator[_Memory]:
    memory = _Memory()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield memory
        memory.peak = torch.cuda.max_memory_allocated(device)
        return
    with suppress(AttributeError, TypeError):  # glibc keeps what was freed, and would hand it out unseen
        ctypes.CDLL(None).malloc_trim(0)
    before = _resident("VmRSS") if device.type == "cpu" and _reset_resident_peak() else None
    yield memory
    if before is not None:
        memory.peak = _resident("VmHWM") - before


def _reset_resident_peak() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _resident(field: str) -> int:
    """A line of this process' status in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))
