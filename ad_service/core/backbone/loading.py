"""From a checkpoint on disk to a Model: a diffusers folder or a single safetensors file, checked before it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ad_service.core.backbone.checkpoints import CheckpointError
from ad_service.core.backbone.devices import choose_device, choose_precision
from ad_service.core.backbone.model import FAMILIES, Family, Model, UNet
from ad_service.core.backbone.prompts import encode_prompts
from ad_service.core.backbone.schedule import cumulative_alphas
from ad_service.core.backbone.weights import Parts, open_parts


def load(
    path: Path, family: str, *, device: str | None = None, precision: str = "auto", name: str | None = None
) -> Model:
    """Load a model without network access.

    The text encoders are loaded first and freed before the UNet is read.

    Args:
        path: a diffusers folder or a single safetensors file.
        family: a key of FAMILIES.
        device: a torch device name; None for the best one of this machine.
        precision: auto, fp32, bf16 or fp16.
        name: how the model is called in messages and results; by default the file's or folder's name.

    Raises:
        CheckpointError: a file is missing, damaged or of another family.
        RuntimeError: this machine does not have the device.
    """
    parts = inspect(path, family)
    where = choose_device(device)
    dtype = choose_precision(precision, where, family)
    (unconditional,) = encode_prompts(parts, [""], where, dtype)
    unet: UNet = parts.unet.load(where, dtype)
    model = Model(
        family=FAMILIES[family],
        name=name or ("pocket" if family == "pocket" else path.stem if path.is_file() else path.name),
        unet=unet,
        vae=parts.vae.load(where, torch.float32),
        alphas=cumulative_alphas(parts.schedule, path),
        prediction="epsilon",
        device=where,
        dtype=dtype,
        unconditional=unconditional,
        digest=parts.digest(),
        parts=parts,
    )
    prediction, notes = _prediction(parts, model)
    return replace(model, family=_row(family, prediction), prediction=prediction, notes=notes)


def inspect(path: Path, family: str) -> Parts:
    """Open a checkpoint and check all that can be checked without reading weights; raises CheckpointError."""
    parts = open_parts(path, family)
    cumulative_alphas(parts.schedule, path)
    texts = [part.check().config for part in parts.texts]
    unet, vae = parts.unet.check().config, parts.vae.check().config
    factor = 2 ** (len(vae.block_out_channels) - 1)
    _expect(path, "VAE", "latent channels", vae.latent_channels, unet.in_channels)
    _expect(path, "VAE", "pixels a latent", factor, FAMILIES[family].factor)
    if texts:
        width = sum(text.hidden_size for text in texts)
        _expect(path, "text encoder", "numbers a word", width, unet.cross_attention_dim)
    return parts


def _expect(path: Path, network: str, what: str, got: int, expected: int) -> None:
    if got != expected:
        raise CheckpointError(
            f"{path}: the {network} does not belong to the UNet: it gives {got} {what}, expected {expected}; "
            f"use the model's own {network}"
        )


def _row(family: str, prediction: str) -> Family:
    """SD 2.x that predicts v was trained on 768 pixels; its epsilon base on 512."""
    row = FAMILIES[family]
    return replace(row, window=96) if family == "sd2" and prediction == "v_prediction" else row


def _prediction(parts: Parts, model: Model) -> tuple[str, tuple[str, ...]]:
    """What the UNet predicts, from the checkpoint or else measured, with a note if the measurement is unusual."""
    declared = parts.schedule.get("prediction_type", "epsilon")
    if declared is None:
        found = measure_prediction(lambda z, t: model.predict(z, t, model.unconditional), model.device)
        note = f"{parts.path.name} does not declare what its network predicts; its output for pure noise shows {found}"
        return found, (note,) if found != "epsilon" else ()
    if declared not in ("epsilon", "v_prediction", "sample"):
        raise CheckpointError(
            f"{parts.path} predicts {declared!r}, which is unknown; use an SD 1.x, SD 2.x or SDXL model"
        )
    return str(declared), ()


@torch.no_grad()
def measure_prediction(predict: Callable[[Tensor, int], Tensor], device: torch.device, channels: int = 4) -> str:
    """Whether `predict(z, t)` returns epsilon or v, measured on pure noise at the last timestep.

    There z is noise (alpha is 0.0047 in Stable Diffusion's schedule), so a network that predicts epsilon returns nearly
    z. One that predicts v = sqrt(alpha) epsilon - sqrt(1 - alpha) x returns its negative guess of the clean latents,
    which hardly correlates with z. The cosine between input and output is therefore near 1 or near 0, and the threshold
    is 0.5. NaN counts as epsilon, the usual kind.
    """
    z = torch.randn(1, channels, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    cosine = torch.cosine_similarity(z.flatten(), predict(z, 999).flatten(), dim=0)
    return "v_prediction" if cosine <= 0.5 else "epsilon"
