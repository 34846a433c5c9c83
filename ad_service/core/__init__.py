"""Texture synthesis by attention distillation: the algorithm, and its public Python face.

    model = load(path, "sd15")
    result = run(synthesize(model, SynthesizeRequest(swatch=swatch, height=512, width=512)))

torch, einops, diffusers; no HTTP, no image files, no contract with Blender. Only weights are read from disk. Names are
imported when they are first used, since the API process reads checkpoint headers with `backbone.checkpoints` and must
not load torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ad_service.core.backbone.conditioning import Conditioning
    from ad_service.core.backbone.loading import load
    from ad_service.core.backbone.model import FAMILIES, Family, Model
    from ad_service.core.pipeline.generate import generate
    from ad_service.core.pipeline.request import (
        GenerateRequest,
        LabelMaps,
        RestyleRequest,
        Result,
        Step,
        SynthesizeRequest,
    )
    from ad_service.core.pipeline.restyle import restyle
    from ad_service.core.pipeline.synthesize import synthesize
    from ad_service.core.pipeline.transform import Channel
    from ad_service.core.pixels import from_uint8, to_uint8
    from ad_service.core.steps import run

_MODULES = {
    "Channel": "pipeline.transform",
    "Conditioning": "backbone.conditioning",
    "FAMILIES": "backbone.model",
    "Family": "backbone.model",
    "GenerateRequest": "pipeline.request",
    "LabelMaps": "pipeline.request",
    "Model": "backbone.model",
    "RestyleRequest": "pipeline.request",
    "Result": "pipeline.request",
    "Step": "pipeline.request",
    "SynthesizeRequest": "pipeline.request",
    "from_uint8": "pixels",
    "generate": "pipeline.generate",
    "load": "backbone.loading",
    "restyle": "pipeline.restyle",
    "run": "steps",
    "synthesize": "pipeline.synthesize",
    "to_uint8": "pixels",
}

__all__ = [
    "FAMILIES",
    "Channel",
    "Conditioning",
    "Family",
    "GenerateRequest",
    "LabelMaps",
    "Model",
    "RestyleRequest",
    "Result",
    "Step",
    "SynthesizeRequest",
    "from_uint8",
    "generate",
    "load",
    "restyle",
    "run",
    "synthesize",
    "to_uint8",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
