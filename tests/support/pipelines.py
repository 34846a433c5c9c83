"""diffusers' own pipelines of the tiny models."""

from __future__ import annotations

from typing import Any

from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from tests.support.clip_tokenizer import tokenizer
from tests.support.tiny_checkpoints import Tiny


def pipeline(model: Tiny) -> Any:
    """The pipeline for text to image, with CLIP's tokenizers."""
    given = {"vae": model.vae, "unet": model.unet, "scheduler": model.scheduler, **model.texts}
    if model.family == "sdxl":
        return StableDiffusionXLPipeline(
            **given, tokenizer=tokenizer(49407), tokenizer_2=tokenizer(0), add_watermarker=False
        )
    first = tokenizer(0 if model.family == "sd2" else 49407)
    return StableDiffusionPipeline(
        **given, tokenizer=first, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
