"""The codec: its analytic start, and the training of its decoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from ad_service.pocket.training.codec import new_codec, read_code, train_codec
from ad_service.pocket.training.codec_start import analyse, build_codec, read_encoder, write_codec
from ad_service.pocket.training.crops import Source, as_images
from ad_service.pocket.training.settings import Run
from tests.support.tiny_training import TINY


def test_encoder_computes_the_patch_code_exactly(pictures: np.ndarray) -> None:
    images = as_images(torch.from_numpy(pictures[:, :64, :64]))
    code = analyse(images, channels=16)
    codec = build_codec(16, (32, 64, 96)).eval()
    write_codec(codec, code)
    with torch.no_grad():
        z = codec.encode(images).latent_dist.mean * codec.config.scaling_factor
    assert torch.allclose(z, code.encode(images), atol=3e-3)
    assert z.mean((0, 2, 3)).abs().max() < 0.01
    assert z.square().mean() == pytest.approx(1, abs=0.02)
    encoder = read_encoder(codec)
    assert torch.equal(encoder.analysis, code.analysis)
    assert torch.equal(encoder.bias, code.bias)


def test_decoder_starts_with_the_right_colors(pictures: np.ndarray) -> None:
    images = as_images(torch.from_numpy(pictures[:, :64, :64]))
    code = analyse(images, channels=16)
    codec = build_codec(16, (32, 64, 96)).eval()
    write_codec(codec, code)
    with torch.no_grad():
        out = codec.decode(code.encode(images)).sample
    coarse = nn.functional.avg_pool2d
    both = torch.stack([coarse(out, 16).flatten(), coarse(images, 16).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.9


def test_training_changes_the_decoder_and_never_the_encoder(run: Run, pictures: np.ndarray) -> None:
    train_codec(run, Source(torch.from_numpy(pictures)))
    state = torch.load(run.checkpoint("codec"), weights_only=True)["model"]
    torch.manual_seed(TINY.seed)
    fresh = new_codec(TINY)
    write_codec(fresh, read_code(run))
    before = fresh.state_dict()
    same = {k for k, v in state.items() if torch.equal(v, before[k])}
    assert all(k in same for k in state if not k.startswith("decoder"))
    assert not any(k in same for k in state if k.endswith("conv2.weight") and k.startswith("decoder"))
