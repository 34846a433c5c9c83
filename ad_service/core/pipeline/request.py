"""Requests (one dataclass a job kind), the steps of a job, and its result: plain data."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ad_service.core.backbone.conditioning import Conditioning
from ad_service.core.materials.follow import SourceMap
from ad_service.core.pipeline.transform import Channel

Preset = Literal["draft", "standard", "fine"]
Detail = Literal["auto", "off", "decoder", "pixels", "both"]
Method = Literal["auto", "optimize", "sample"]
RestyleMethod = Literal["auto", "optimize", "sample", "preview"]
StartName = Literal["auto", "noise", "fill", "quilt"]
Phase = Literal["prepare", "encode", "start", "denoise", "fit-decoder", "decode", "sharpen", "maps", "measure"]


@dataclass(frozen=True)
class LabelMaps:
    """A painted layout: `layout` of any size over the result and `regions` (h, w) over the swatch, int64 labels.

    `palette` (n, 3) uint8 has the color of each label, for messages.
    """

    layout: Tensor
    regions: Tensor
    palette: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every job kind has in common. None and "auto" leave the choice to the preset and the model's family.

    Attributes:
        swatch: the exemplar's base color (3, h, w), float32 in [0, 1].
        channels: other channels of the material by name, pixel by pixel over the swatch.
        height, width: of the result in pixels.
        tile_y, tile_x: whether the result repeats along each axis.
        scale: size of the swatch's grain in the result, relative to the swatch.
        even_light: part of the swatch's uneven lighting that is removed, in [0, 1].
        strength, steps, iterations, learning_rate, content_weight: see `samplers.Plan`.
        conditioning: the encoded prompt; None for the empty one.
    """

    swatch: Tensor
    height: int
    width: int
    tile_y: bool = True
    tile_x: bool = True
    seed: int = 0
    scale: float = 1.0
    even_light: float = 0.0
    preset: Preset = "standard"
    detail: Detail = "auto"
    strength: float | None = None
    steps: int | None = None
    iterations: int | None = None
    learning_rate: float | None = None
    content_weight: float | None = None
    channels: Mapping[str, Channel] = field(default_factory=dict)
    conditioning: Conditioning | None = None

    def __post_init__(self) -> None:
        for name, channel in self.channels.items():
            if name == "color" or channel.pixels.shape[1:] != self.swatch.shape[1:]:
                raise ValueError(
                    f"the channel {name!r} has {tuple(channel.pixels.shape[1:])} pixels, and the swatch "
                    f"{tuple(self.swatch.shape[1:])}; both must agree, and no channel may be named color"
                )

    @property
    def tiles(self) -> tuple[bool, bool]:
        """Whether y and x tile."""
        return self.tile_y, self.tile_x


@dataclass(frozen=True, kw_only=True)
class SynthesizeRequest(Request):
    """A new texture from the swatch, arranged by `maps` if there is a painted layout.

    `novelty` is the share of a quilt in [0, 1] that is replaced by texture that is not copied in pieces.
    """

    method: Method = "auto"
    start: StartName = "auto"
    novelty: float = 0.0
    maps: LabelMaps | None = None


@dataclass(frozen=True, kw_only=True)
class RestyleRequest(Request):
    """The content (3, any size), float32 in [0, 1], redrawn in the material of the swatch."""

    content: Tensor
    method: RestyleMethod = "auto"


@dataclass(frozen=True, kw_only=True)
class GenerateRequest(Request):
    """A picture made from a prompt, in the material of the swatch; without one, an ordinary texture from words.

    Attributes:
        swatch: (3, h, w), or (3, 0, 0) for none.
        prompt, negative_prompt: what to make, and what to avoid.
        guidance: the scale of classifier-free guidance; 1 for none.
        region_prompts: what each label of `layout` shows; the prompt is added to each.
        layout: (any size) int64 labels, each with a region prompt; None for one prompt everywhere.
    """

    prompt: str
    negative_prompt: str = ""
    guidance: float = 7.0
    region_prompts: tuple[str, ...] = ()
    layout: Tensor | None = None

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts in full: one, or one for each label."""
        return tuple(", ".join(filter(None, (p, self.prompt))) for p in self.region_prompts) or (self.prompt,)


@dataclass(frozen=True)
class Step:
    """A step of a job: the fraction of the whole that is done, its phase, and the same in words.

    `preview` makes a small picture (h, w, 3) uint8 of the canvas when it is called.
    """

    fraction: float
    phase: Phase
    message: str
    preview: Callable[[], Tensor] | None = None


@dataclass(frozen=True)
class Result:
    """A finished job.

    Attributes:
        channels: pictures (H, W, C) on the host by name: uint8, or uint16 of a channel with 16 bits; `color` is always
            there.
        metrics: see `metrics` and `finish.measure`.
        notes: what the artist should know.
        source_map: the cell of the exemplar that each place was copied from; None for a start from noise or from a
            content's latents. Denoising and sharpening may have changed the color since.
    """

    channels: Mapping[str, Tensor]
    metrics: Mapping[str, float]
    notes: tuple[str, ...] = ()
    source_map: SourceMap | None = None

    @property
    def color(self) -> Tensor:
        """The base color (H, W, 3) uint8."""
        return self.channels["color"]


Job = Generator[Step, None, Result]
"""A job in progress: yields after every step and can be dropped between any two."""
