"""Tiny models with the real architectures' topology and random weights, saved as real checkpoints are.

Every function is deterministic: a family has the same weights in a diffusers folder and in a single file.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, UNet2DModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ad_service.bench.random_models import UNETS, vae
from ad_service.core.backbone.checkpoints import SCHEDULE

WIDTH = 32  # of the text encoders
WORDS = 49408

NARROW: dict[str, dict[str, Any]] = {
    "sd15": {"block_out_channels": (32, 32, 64, 64), "cross_attention_dim": WIDTH},
    "sd2": {
        "block_out_channels": (32, 32, 64, 64),
        "attention_head_dim": (1, 1, 1, 1),
        "cross_attention_dim": WIDTH,
    },
    "sdxl": {
        "block_out_channels": (32, 32, 64),
        "attention_head_dim": (1, 1, 1),
        "cross_attention_dim": 2 * WIDTH,
        "projection_class_embeddings_input_dim": WIDTH + 6 * 256,
    },
}
"""What makes the real UNets tiny."""


@dataclass
class Tiny:
    """The networks of one tiny model, in float32 on the CPU, by their names in a diffusers folder."""

    family: str
    unet: nn.Module
    vae: AutoencoderKL
    texts: dict[str, nn.Module]
    scheduler: DDIMScheduler


def tiny(family: str, **unet_changes: Any) -> Tiny:
    """A model of `family` (pocket, sd15, sd2, sdxl) with a few channels; `unet_changes` go into the UNet's config."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if family == "pocket":
            return _tiny_pocket()
        unet = UNet2DConditionModel(**(UNETS[family] | NARROW[family] | unet_changes))
        return Tiny(family, unet, vae(family, (32, 32, 32, 32)), _texts(family), _scheduler(family))


def real(family: str) -> Tiny:
    """The networks in their real size, without weights: on the meta device."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNETS[family])
        clip = _text_config("quick_gelu", "CLIPTextModel", width=768, layers=12)
        open_clip = _text_config("gelu", "CLIPTextModelWithProjection", width=1280, layers=32)
        texts: dict[str, nn.Module] = {"text_encoder": CLIPTextModel(clip)}
        if family == "sd2":
            texts = {"text_encoder": CLIPTextModel(_text_config("gelu", "CLIPTextModel", width=1024, layers=23))}
        if family == "sdxl":
            texts["text_encoder_2"] = CLIPTextModelWithProjection(open_clip)
        return Tiny(family, unet, vae(family), texts, _scheduler(family))


def _tiny_pocket() -> Tiny:
    unet = UNet2DModel(
        sample_size=128,
        in_channels=16,
        out_channels=16,
        block_out_channels=(32, 64),
        layers_per_block=2,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=16,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 16, 32),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=8,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    return Tiny("pocket", unet, vae, {}, scheduler)


def _scheduler(family: str) -> DDIMScheduler:
    return DDIMScheduler(
        **SCHEDULE,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction" if family == "sd2" else "epsilon",
    )


def _texts(family: str) -> dict[str, nn.Module]:
    clip = CLIPTextModel(_text_config("gelu" if family == "sd2" else "quick_gelu", "CLIPTextModel"))
    if family != "sdxl":
        return {"text_encoder": clip}
    open_clip = CLIPTextModelWithProjection(_text_config("gelu", "CLIPTextModelWithProjection"))
    return {"text_encoder": clip, "text_encoder_2": open_clip}


def _text_config(activation: str, name: str, width: int = WIDTH, layers: int = 3) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=WORDS,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        projection_dim=width,
        hidden_act=activation,
        bos_token_id=49406,
        eos_token_id=49407,
        architectures=[name],
    )


# ---------------------------------------------------------------------------------------------- diffusers folders


def save_folder(model: Tiny, folder: Path, variant: str | None = None) -> Path:
    """Save as a pipeline does; with `variant="fp16"` in float16 under the names of that variant."""
    parts = {"unet": model.unet, "vae": model.vae, **model.texts}
    for name, part in parts.items():
        saved = copy.deepcopy(part).half() if variant == "fp16" else part
        saved.save_pretrained(folder / name, variant=variant)
    model.scheduler.save_pretrained(folder / "scheduler")
    index: dict[str, Any] = {name: _library(part) for name, part in (parts | {"scheduler": model.scheduler}).items()}
    index["_class_name"] = "StableDiffusionXLPipeline" if model.family == "sdxl" else "StableDiffusionPipeline"
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _library(part: Any) -> list[str]:
    return [type(part).__module__.split(".")[0], type(part).__name__]


def tiny_pocket(folder: Path) -> Path:
    return save_folder(tiny("pocket"), folder)


def tiny_sd15(folder: Path) -> Path:
    return save_folder(tiny("sd15"), folder)


def tiny_sd2(folder: Path) -> Path:
    return save_folder(tiny("sd2"), folder)


def tiny_sdxl(folder: Path) -> Path:
    return save_folder(tiny("sdxl"), folder)


# ---------------------------------------------------------------------------------------------- single files (LDM)


def tiny_single_file(family: str, path: Path, **unet_changes: Any) -> Path:
    """A checkpoint in the layout of the original code that says, as good ones do, what its network predicts."""
    model = tiny(family, **unet_changes)
    said = {"modelspec.prediction_type": "v" if family == "sd2" else "epsilon"}
    return save_single_file(single_file_tensors(model), path, said)


def save_single_file(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path, metadata)
    return path


def single_file_tensors(model: Tiny) -> dict[str, Tensor]:
    """All tensors of a model under the original code's names."""
    clip = {"sd15": "cond_stage_model.transformer.", "sdxl": "conditioner.embedders.0.transformer."}
    open_clip = {"sd2": ("text_encoder", "cond_stage_model.model."), "sdxl": _SDXL_OPEN_CLIP}
    tensors = _prefixed("model.diffusion_model.", ldm_unet(model.unet))
    tensors |= _prefixed("first_stage_model.", ldm_vae(model.vae))
    if model.family in clip:
        tensors |= _prefixed(clip[model.family], ldm_clip(model.texts["text_encoder"]))
    if model.family in open_clip:
        name, prefix = open_clip[model.family]
        tensors |= _prefixed(prefix, ldm_open_clip(model.texts[name], unused_layer=model.family == "sd2"))
    tensors["alphas_cumprod"] = model.scheduler.alphas_cumprod
    return tensors


_SDXL_OPEN_CLIP = ("text_encoder_2", "conditioner.embedders.1.model.")


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _replaced(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        name = name.replace(old, new)
    return name


_RESNET = (
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("time_emb_proj", "emb_layers.1"),
    ("conv_shortcut", "skip_connection"),
)
_TOP = (
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_in", "input_blocks.0.0"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
)


def ldm_unet(unet: nn.Module) -> dict[str, Tensor]:
    """The UNet's tensors as in the original code's UNetModel."""
    rows = unet.config.layers_per_block + 1
    return {_ldm_unet_name(name, rows, unet): tensor for name, tensor in unet.state_dict().items()}


def _ldm_unet_name(name: str, rows: int, unet: nn.Module) -> str:
    parts = name.split(".")
    if parts[0] == "mid_block":
        place = {("resnets", "0"): 0, ("attentions", "0"): 1, ("resnets", "1"): 2}[parts[1], parts[2]]
        rest = ".".join(parts[3:])
        return f"middle_block.{place}." + (_replaced(rest, _RESNET) if parts[1] == "resnets" else rest)
    if parts[0] not in ("down_blocks", "up_blocks"):
        return _replaced(name, _TOP)
    level, kind, i, rest = int(parts[1]), parts[2], int(parts[3]), ".".join(parts[4:])
    down = parts[0] == "down_blocks"
    if kind == "downsamplers":
        return f"input_blocks.{(level + 1) * rows}.0.op." + parts[-1]
    if kind == "upsamplers":
        place = 2 if hasattr(unet.up_blocks[level], "attentions") else 1
        return f"output_blocks.{level * rows + rows - 1}.{place}.conv." + parts[-1]
    block = f"input_blocks.{level * rows + i + 1}" if down else f"output_blocks.{level * rows + i}"
    return f"{block}.0.{_replaced(rest, _RESNET)}" if kind == "resnets" else f"{block}.1.{rest}"


_VAE_ATTENTION = (
    ("group_norm", "norm"),
    ("to_q", "q"),
    ("to_k", "k"),
    ("to_v", "v"),
    ("to_out.0", "proj_out"),
)


def ldm_vae(vae: AutoencoderKL) -> dict[str, Tensor]:
    """The VAE's tensors as in the original code's AutoencoderKL, where attention is made of 1x1 convolutions."""
    levels = len(vae.config.block_out_channels)
    renamed = {}
    for name, tensor in vae.state_dict().items():
        parts = name.split(".")
        if "attentions" in parts:
            name = _replaced(f"{parts[0]}.mid.attn_1.{'.'.join(parts[4:])}", _VAE_ATTENTION)
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        elif "mid_block" in parts:
            name = f"{parts[0]}.mid.block_{int(parts[3]) + 1}.{'.'.join(parts[4:])}"
        elif "down_blocks" in parts:
            name = f"encoder.down.{parts[2]}.{'.'.join(parts[3:])}"
        elif "up_blocks" in parts:
            name = f"decoder.up.{levels - 1 - int(parts[2])}.{'.'.join(parts[3:])}"
        renamed[_replaced(name, _VAE_NAMES)] = tensor
    return renamed


_VAE_NAMES = (
    ("resnets", "block"),
    ("downsamplers.0", "downsample"),
    ("upsamplers.0", "upsample"),
    ("conv_shortcut", "nin_shortcut"),
    ("conv_norm_out", "norm_out"),
)


def ldm_clip(encoder: nn.Module) -> dict[str, Tensor]:
    """OpenAI's CLIP as transformers saved it at the time, position numbers included."""
    names = {name.removeprefix("text_model."): tensor for name, tensor in encoder.state_dict().items()}
    names["embeddings.position_ids"] = torch.arange(77)[None]
    return _prefixed("text_model.", names)


_OPEN_CLIP = (
    ("text_model.", ""),
    ("embeddings.position_embedding.weight", "positional_embedding"),
    ("embeddings.token_embedding", "token_embedding"),
    ("final_layer_norm", "ln_final"),
    ("encoder.layers", "transformer.resblocks"),
    ("layer_norm", "ln_"),
    ("fc1", "c_fc"),
    ("fc2", "c_proj"),
    ("self_attn", "attn"),
    ("text_projection.weight", "text_projection"),
)


def ldm_open_clip(encoder: nn.Module, *, unused_layer: bool) -> dict[str, Tensor]:
    """OpenCLIP's text tower; `unused_layer` adds the last layer that SD 2.x carries and does not run."""
    state = encoder.state_dict()
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".q_proj." in name:
            stacked = torch.cat([state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"])
            renamed[_replaced(name.replace("q_proj.", "in_proj_"), _OPEN_CLIP)] = stacked
        elif ".k_proj." not in name and ".v_proj." not in name:
            renamed[_replaced(name, _OPEN_CLIP)] = tensor.T if "text_projection" in name else tensor
    renamed.setdefault("text_projection", torch.eye(encoder.config.hidden_size))
    renamed["logit_scale"] = torch.tensor(4.6)
    if unused_layer:
        last = max(int(name.split(".")[2]) for name in renamed if "resblocks" in name)
        copies = {n: t for n, t in renamed.items() if f"resblocks.{last}." in n}
        renamed |= {n.replace(f"blocks.{last}.", f"blocks.{last + 1}."): 2 * t + 1 for n, t in copies.items()}
    return renamed
