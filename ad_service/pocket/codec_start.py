"""The analytic start of pocket's codec: an AutoencoderKL whose encoder is an exact linear map of 4x4 pixel patches.

An autoencoder of this size does not learn to carry colour within minutes. So its encoder is written down instead of
trained: space-to-depth and a PCA of the patches in a luma-chroma space, spelt in the stock layers of diffusers. The
decoder starts as a smooth upsampling of the colour that the latents carry, and is trained from there.
"""

from __future__ import annotations

from dataclasses import dataclass

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
class PatchCode:
    """z = analysis(patch) + bias and colour = mean + synthesis(z), for patches (3, 4, 4) in [-1, 1].

    analysis (C, 3, 4, 4), bias (C,), colour (3, C): the mean colour of a patch from its latents, mean (3,).
    """

    analysis: Tensor
    bias: Tensor
    colour: Tensor
    mean: Tensor

    def encode(self, images: Tensor) -> Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, C, h/4, w/4): what the written encoder computes, by one convolution."""
        return nn.functional.conv2d(images, self.analysis, self.bias, stride=FACTOR)


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
        colour=synthesis.view(channels, 3, -1).mean(2).T.float().contiguous(),
        mean=mean.view(3, -1).mean(1).float(),
    )


def patch_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (48,) and covariance (48, 48) of all patches, in double precision, a few images at a time."""
    total, square, count = torch.zeros(PATCH).double(), torch.zeros(PATCH, PATCH).double(), 0
    for some in images.split(16):
        p = patches(some).double()
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
    """Write the patch code into the encoder exactly, and a smooth colour upsampling into the decoder."""
    for module in codec.modules():
        if isinstance(module, ResnetBlock2D):  # a residual block that adds nothing, yet
            clear(module.conv2)
    write_encoder(codec, code)
    write_decoder(codec, code)


def clear(layer: nn.Conv2d) -> nn.Conv2d:
    """Set a layer to zero; return it."""
    layer.weight.zero_()
    if layer.bias is not None:
        layer.bias.zero_()
    return layer


def identity(layer: nn.Conv2d, n: int) -> None:
    """Pass the first n channels through a 1x1 layer, and nothing else."""
    clear(layer).weight[range(n), range(n), 0, 0] = 1


def write_encoder(codec: AutoencoderKL, code: PatchCode) -> None:
    """Two strided convolutions gather the pixels of a patch, the second one applies the analysis.

    The last norm and SiLU stand in the way of a linear map. Constant channels of +-KEEP in every group make the norm a
    fixed scale, which its weight undoes; each latent travels as a pair (z, -z), and silu(z) - silu(-z) = z.
    """
    encoder, channels = codec.encoder, len(code.analysis)
    clear(encoder.conv_in).weight[range(3), range(3), 1, 1] = 1

    gather = clear(encoder.down_blocks[0].downsamplers[0].conv)  # pads right and below: taps 0, 1 are the two pixels
    for c in range(3):
        for y in range(2):
            for x in range(2):
                gather.weight[4 * c + 2 * y + x, c, y, x] = 1
    identity(encoder.down_blocks[1].resnets[0].conv_shortcut, 12)

    analyse_conv = clear(encoder.down_blocks[1].downsamplers[0].conv)
    for c in range(3):
        for y in range(FACTOR):
            for x in range(FACTOR):
                analyse_conv.weight[:channels, 4 * c + 2 * (y % 2) + x % 2, y // 2, x // 2] = code.analysis[:, c, y, x]
    analyse_conv.bias[:channels] = code.bias

    norm, groups = encoder.conv_norm_out, encoder.conv_norm_out.num_groups
    size = norm.num_channels // groups
    spread = clear(encoder.down_blocks[2].resnets[0].conv_shortcut)
    gather_out = clear(encoder.conv_out)
    for g in range(groups):
        spread.bias[g * size], spread.bias[g * size + 1] = KEEP, -KEEP
    norm.weight.fill_(KEEP * (2 / size) ** 0.5)
    norm.bias.zero_()
    for k in range(channels):
        at = (k % groups) * size + 2 + 2 * (k // groups)
        spread.weight[at, k], spread.weight[at + 1, k] = 1, -1
        gather_out.weight[k, at, 1, 1], gather_out.weight[k, at + 1, 1, 1] = 1, -1
    gather_out.bias[channels:] = -20  # log variance: none to speak of
    clear(codec.quant_conv).weight[range(2 * channels), range(2 * channels), 0, 0] = 1
    clear(codec.post_quant_conv).weight[range(channels), range(channels), 0, 0] = 1


def write_decoder(codec: AutoencoderKL, code: PatchCode) -> None:
    """The first six channels carry (colour, -colour) through smooth upsamplings to the output; the rest learns."""
    decoder = codec.decoder
    sign = torch.tensor([1.0, -1.0]).repeat(3)  # channels 2j, 2j+1 are +-colour j
    for i in range(6):
        decoder.conv_in.weight[i] = 0
        decoder.conv_in.weight[i, :, 1, 1] = sign[i] * code.colour[i // 2]
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
