"""The model that ships runs as it was trained."""

from __future__ import annotations

from pathlib import Path

import torch

import ad_service.pocket
from ad_service.core.backbone import loading
from ad_service.core.sampling.attention import capture
from ad_service.pocket.in_context import InContext

WEIGHTS = Path(ad_service.pocket.__file__).parent / "weights"


def test_the_engine_reads_the_swatch_with_the_attention_of_the_training() -> None:
    pocket = loading.load(WEIGHTS, "pocket", device="cpu", precision="fp32")
    generator = torch.Generator().manual_seed(0)
    swatch, z = (torch.randn(1, 16, 16, 24, generator=generator) for _ in range(2))
    with capture(pocket) as tape, torch.no_grad():
        ours, _ = tape.observe(z, 300, tape.reference(swatch, 0))
    for layer in loading.self_attention_layers(pocket.unet):  # type: ignore[arg-type]
        layer.processor = InContext(1)
    with torch.no_grad():
        theirs = pocket.unet(torch.cat([swatch, z]), torch.tensor([0, 300]), return_dict=False)[0][1:]
    assert torch.allclose(ours, theirs, atol=1e-5)
