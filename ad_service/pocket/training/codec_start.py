"""The analytic start of pocket's codec: an AutoencoderKL whose encoder is an exact linear map of 4x4 patches.

An autoencoder of this size does not learn to carry color within minutes. So its encoder is written down instead of
trained: space-to-depth and a PCA of the patches in a luma-chroma space, expressed in the stock layers of diffusers. The
decoder starts as a smooth upsampling of the color that the latents carry, and is trained from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

FACTOR = 4  # pixels a latent, along each axis
PATCH = 3 * FACTOR * FACTOR  # numbers in a patch
KEEP = 256.0  # a constant channel this large rules a group's variance, so that its norm is a fixed scale

YCC = torch.tensor([[0.299, 0.587, 0.114], [-0.169, -0.331, 0.5], [0.5, -0.419, -0.081]])
YCC_WEIGHTS = torch.tensor([1.0, 0.6, 0.6])  # an error in chroma weighs less
WHITENING = 0.6  # 0: latents keep their variance, 1: all alike; structure stays stronger than grain


@dataclass(frozen=True)
class PatchEncoder:
    """z = analysis(patch) + bias, for patches (3, 4, 4) in [-1, 1]: analysis (C, 3, 4, 4), bias (C,)."""

    analysis: Tensor
    bias: Tensor

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, C, h/4, w/4): what the codec's encoder computes, by one convolution."""
        return nn.functional.conv2d(images, self.analysis, self.bias, stride=FACTOR)

    def to(self, device: torch.device) -> PatchEncoder:
        """The same on another device."""
        return PatchEncoder(self.analysis.to(device), self.bias.to(device))


@dataclass(frozen=True)
class PatchCode(PatchEncoder):
    """The encoder, and a first decoder that gives the mean color of a patch: mean + color z.

    color (3, C), mean (3,).
    """

    color: Tensor
    mean: Tensor


def patches(images: Tensor) -> Tensor:
    """(n, 3, h, w) -> (n*h/4*w/4, 48), each patch in the order channel, row, column."""
    return nn.functional.unfold(images, FACTOR, stride=FACTOR).transpose(1, 2).reshape(-1, PATCH)


def analyse(images: Tensor, channels: int) -> PatchCode:
    """PCA of the patches of (n, 3, h, w): latents of mean zero and unit mean variance, grain partly whitened."""
    mean, covariance = patch_statistics(images)
    to_ycc = torch.kron(YCC * YCC_WEIGHTS[:, None], torch.eye(FACTOR * FACTOR)).double()
    _, basis = torch.linalg.eigh(to_ycc @ covariance @ to_ycc.T)
    analysis = basis.flip(1)[:, :channels].T @ to_ycc  # (C, 48), strongest first
    sd = (analysis @ covariance @ analysis.T).diagonal().sqrt()
    gain = sd**-WHITENING
    analysis = analysis * (gain / ((gain * sd) ** 2).mean().sqrt())[:, None]
    latent_covariance = analysis @ covariance @ analysis.T
    synthesis = torch.linalg.solve(latent_covariance, analysis @ covariance)  # (C, 48), least squares
    return PatchCode(
        analysis=analysis.view(channels, 3, FACTOR, FACTOR).float(),
        bias=-(analysis @ mean).float(),
        color=synthesis.view(channels, 3, -1).mean(2).T.float().contiguous(),
        mean=mean.view(3, -1).mean(1).float(),
    )


def patch_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (48,) and covariance (48, 48) of all patches, in double precision, a few images at a time."""
    total, square, count = torch.zeros(PATCH).double(), torch.zeros(PATCH, PATCH).double(), 0
    for first in range(0, len(images), 16):
        p = patches(images[first : first + 16]).double()
        total, square, count = total + p.sum(0), square + p.T @ p, count + len(p)
    mean = total / count
    return mean, square / count - torch.outer(mean, mean)


def build_codec(channels: int, widths: tuple[int, ...], groups: int = 8) -> AutoencoderKL:
    """The stock autoencoder that the code is written into: factor 4, no attention, latents used as they come."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=widths,
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=groups,
        mid_block_add_attention=False,
        sample_size=512,
        scaling_factor=1.0,
    )


@torch.no_grad()
def write_codec(codec: AutoencoderKL, code: PatchCode) -> None:
    """Write the patch code into the encoder exactly, and a smooth color upsampling into the decoder."""
    for module in codec.modules():
        if isinstance(module, ResnetBlock2D):  # a residual block that adds nothing, yet
            cleared(module.conv2)
    write_encoder(codec, code)
    write_decoder(codec, code)


def cleared(layer: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Set a layer to zero; return its weight and bias."""
    assert layer.bias is not None
    return layer.weight.zero_(), layer.bias.zero_()


def write_encoder(codec: AutoencoderKL, code: PatchCode) -> None:
    """Two strided convolutions gather the pixels of a patch, the second one applies the analysis.

    The last norm and SiLU stand in the way of a linear map. Constant channels of +-KEEP in every group make the norm
    a fixed scale, which its weight undoes; each latent travels as a pair (z, -z), and silu(z) - silu(-z) = z.
    """
    encoder, channels = codec.encoder, len(code.analysis)
    copy, _ = cleared(encoder.conv_in)
    copy[range(3), range(3), 1, 1] = 1

    gather, _ = cleared(encoder.down_blocks[0].downsamplers[0].conv)  # padded right and below: taps 0, 1 are the pixels
    for c, y, x in product(range(3), range(2), range(2)):
        gather[4 * c + 2 * y + x, c, y, x] = 1
    copy, _ = cleared(encoder.down_blocks[1].resnets[0].conv_shortcut)
    copy[range(12), range(12), 0, 0] = 1

    weight, bias = cleared(encoder.down_blocks[1].downsamplers[0].conv)
    for c, y, x in product(range(3), range(FACTOR), range(FACTOR)):
        weight[:channels, 4 * c + 2 * (y % 2) + x % 2, y // 2, x // 2] = code.analysis[:, c, y, x]
    bias[:channels] = code.bias

    norm, groups = encoder.conv_norm_out, encoder.conv_norm_out.num_groups
    size = norm.num_channels // groups
    norm.weight.fill_(KEEP * (2 / size) ** 0.5)
    norm.bias.zero_()
    spread, constant = cleared(encoder.down_blocks[2].resnets[0].conv_shortcut)
    constant[0::size], constant[1::size] = KEEP, -KEEP
    unite, moments = cleared(encoder.conv_out)
    for k in range(channels):
        pair = (k % groups) * size + 2 + 2 * (k // groups)
        spread[pair, k], spread[pair + 1, k] = 1, -1
        unite[k, pair, 1, 1], unite[k, pair + 1, 1, 1] = 1, -1
    moments[channels:] = -20  # log variance: none to speak of
    for layer in (codec.quant_conv, codec.post_quant_conv):
        copy, _ = cleared(layer)
        copy[range(len(copy)), range(len(copy)), 0, 0] = 1


@torch.no_grad()
def read_encoder(codec: AutoencoderKL) -> PatchEncoder:
    """The patch encoder that `write_encoder` wrote into a codec, in fp32."""
    last, channels = codec.encoder.down_blocks[1].downsamplers[0].conv, codec.config.latent_channels
    analysis = torch.empty(channels, 3, FACTOR, FACTOR)
    for c, y, x in product(range(3), range(FACTOR), range(FACTOR)):
        analysis[:, c, y, x] = last.weight[:channels, 4 * c + 2 * (y % 2) + x % 2, y // 2, x // 2]
    return PatchEncoder(analysis, last.bias[:channels].float())


def write_decoder(codec: AutoencoderKL, code: PatchCode) -> None:
    """The first six channels carry (color, -color) through smooth upsamplings to the output; the rest learns."""
    decoder = codec.decoder
    sign = torch.tensor([1.0, -1.0]).repeat(3)  # channels 2j, 2j+1 are +-color j
    for i in range(6):
        decoder.conv_in.weight[i] = 0
        decoder.conv_in.weight[i, :, 1, 1] = sign[i] * code.color[i // 2]
        decoder.conv_in.bias[i] = sign[i] * code.mean[i // 2]
    tent = torch.tensor([0.25, 0.5, 0.25])
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            if resnet.conv_shortcut is not None:
                resnet.conv_shortcut.weight[:6] = 0
                resnet.conv_shortcut.bias[:6] = 0
                resnet.conv_shortcut.weight[range(6), range(6)] = 1
        for upsampler in block.upsamplers or ():
            upsampler.conv.weight[:6] = 0
            upsampler.conv.bias[:6] = 0
            upsampler.conv.weight[range(6), range(6)] = tent[:, None] * tent
    decoder.conv_out.weight.mul_(0.3)
    decoder.conv_out.weight[:, :6] = 0
    decoder.conv_out.bias.zero_()
    for i in range(6):
        decoder.conv_norm_out.weight[i] = 0.5
        decoder.conv_out.weight[i // 2, i, 1, 1] = sign[i]
