"""The weights that ship: the engine runs them as they were trained, and they are small."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL

from ad_service.core import load
from ad_service.core.sampling.attention import capture_attention
from ad_service.pocket import WEIGHTS
from ad_service.pocket.training import textures
from ad_service.pocket.training.codec_start import read_encoder
from ad_service.pocket.training.crops import as_images
from ad_service.pocket.training.evaluate import psnr
from ad_service.pocket.training.in_context import set_references


def test_engine_and_training_agree_on_attention() -> None:
    pocket = load(WEIGHTS, "pocket", device="cpu", precision="fp32")
    generator = torch.Generator().manual_seed(0)
    swatch, z = (torch.randn(1, 16, 16, 24, generator=generator) for _ in range(2))
    with capture_attention(pocket) as capture, torch.no_grad():
        ours, _ = capture.predict_and_record(z, 300, capture.reference(swatch, 0))
    set_references(pocket.unet, 1)  # type: ignore[arg-type]
    with torch.no_grad():
        theirs = pocket.unet(torch.cat([swatch, z]), torch.tensor([0, 300]), return_dict=False)[0][1:]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_weights_are_small_and_reconstruct_an_unseen_texture() -> None:
    assert sum(p.stat().st_size for p in WEIGHTS.rglob("*.safetensors")) < 40e6
    codec = AutoencoderKL.from_pretrained(WEIGHTS / "vae").eval()
    picture = as_images(torch.from_numpy(textures.texture(987654321)[None, :128, :128]))
    with torch.no_grad():
        z = codec.encode(picture).latent_dist.mean
        back = codec.decode(z).sample
    assert z.shape == (1, 16, 32, 32)
    assert torch.allclose(read_encoder(codec).encode(picture), z, atol=5e-3)
    assert psnr(back.clamp(-1, 1), picture) > 28
