"""How many bytes the stages of a job need on a device, in formulas. No torch, so that a plan can use them.

The constants were counted operation by operation on the meta device, with the real architectures and with attention as
CUDA's fused kernels compute it; `tests/core/backbone/test_memory.py` counts them again.
"""

from __future__ import annotations

from dataclasses import dataclass

SHARE = 0.8
"""The part of the free memory that a stage may plan with: workspaces, fragments and other programs need the rest."""

ENCODER_MAPS = 5.1
DECODER_MAPS = 8.1
SHARED_ENCODER_MAPS = 6.1
FIT_MAPS = 44.0
"""Feature maps of full resolution, as wide as the VAE's first layer and in float32, that exist at once: in the encoder,
in the decoder and the encoder with shared statistics, and in the decoder with its gradient."""

FIT_COPIES = 5
"""Copies of the decoder's parameters while it is fitted: gradients, two moments, the model's own and the result."""

VAE_BYTES = 4 * 83_653_863
DECODER_BYTES = 4 * 49_490_179
VAE_WIDTH = 128
"""Stable Diffusion's VAE, always in float32: its parameters, those of its decoder, and the width of its first layer."""


@dataclass(frozen=True)
class UNetMemory:
    """A UNet in full size: its parameters, and bytes for each latent of a window in 16-bit numbers.

    `gradient` is for the AD loss and the content loss with their gradient, `recomputed` the same if blocks are computed
    again in the backward pass, `forward` for a run without a gradient. `unfused` and `unfused_recomputed` are the first
    two where attention keeps all scores, for windows of the family's own size or smaller.
    """

    parameters: int
    gradient: int
    recomputed: int
    forward: int
    unfused: int
    unfused_recomputed: int


UNETS: dict[str, UNetMemory] = {
    "sd15": UNetMemory(859_520_964, 203_200, 73_000, 28_200, 1_174_100, 448_900),
    "sd2": UNetMemory(865_910_724, 192_500, 62_300, 28_200, 831_800, 290_800),
    "sdxl": UNetMemory(2_567_463_684, 315_300, 48_100, 17_800, 1_142_800, 159_100),
}
"""By family; pocket is small enough without an estimate."""

WINDOWS = {"sd15": 64, "sd2": 96, "sdxl": 128}
"""The side of the largest windows of each family in latents."""


def map_bytes(width: int, factor: int) -> int:
    """Bytes of one feature map of full resolution, for each latent."""
    return 4 * width * factor**2


def largest_side(free: int | None, side: int, margin: int, bytes_per_latent: float, overhead: int = 0) -> int:
    """The largest of side, side / 2, side / 4 ... for which (side + 2 margin)^2 latents fit into the free bytes.

    `side` itself if the free memory is unknown; at least 16.
    """
    while free is not None and side > 16 and bytes_per_latent * (side + 2 * margin) ** 2 + overhead > SHARE * free:
        side //= 2
    return side


@dataclass(frozen=True)
class JobMemory:
    """Bytes of a job at its peak: `comfortable` at full speed, `least` with small tiles and recomputed blocks."""

    comfortable: int
    least: int


def job_memory(family: str, itemsize: int, side: int) -> JobMemory | None:
    """What a job of Stable Diffusion needs, with numbers of `itemsize` bytes in its UNet. None for pocket.

    `side` is the longer side of the result in latents. Beyond windows and tiles it makes no difference: the canvas is
    in the computer's memory.
    """
    unet = UNETS.get(family)
    if unet is None:
        return None
    resident = unet.parameters * itemsize + VAE_BYTES
    window, tile = min(side, WINDOWS[family]), map_bytes(VAE_WIDTH, 8)
    stages = (
        unet.gradient * itemsize / 2 * window**2,
        DECODER_MAPS * tile * (min(side, 128) + 2 * 16) ** 2,
        FIT_MAPS * tile * 48**2 + FIT_COPIES * DECODER_BYTES,
    )
    # the smallest tiles, without the UNet; or one window whose blocks are computed again
    small = max(unet.recomputed * itemsize / 2 * window**2, DECODER_MAPS * tile * (16 + 2 * 16) ** 2)
    return JobMemory(round(resident + max(stages)), round(resident + small))
