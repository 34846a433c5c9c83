"""Checkpoints on disk: their family, configs and files, read from headers and configs only.

Standard library only: no weights are read and torch is not imported, so that listing models is fast. A checkpoint is a
folder in the layout of diffusers (model_index.json, unet/, vae/, ...) or a single safetensors file in the layout of
the original Stable Diffusion code ("LDM": model.diffusion_model.*, first_stage_model.*, ...).
"""

from __future__ import annotations

import hashlib
import json
import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Any

TensorShapes = Mapping[str, tuple[int, ...]]
Config = dict[str, Any]


class CheckpointError(Exception):
    """A checkpoint that cannot be used; the message has the file, what is wrong with it and what to do."""


# ---------------------------------------------------------------------------------------------- safetensors headers

MAX_HEADER = 8_000_000
"""Bytes. The format allows 100 MB, which took 15 s and 1.3 GB; SDXL, the largest family, has 0.4 MB in one file."""

_ITEM_SIZE = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip

_PICKLE = "is a pickled checkpoint (.ckpt), which can run arbitrary code and is never opened; use its safetensors file"
_NOT_SAFETENSORS = (
    (b"GGUF", "is a GGUF file, a quantized format without gradients; use the safetensors file of this model"),
    (b"PK\x03\x04", _PICKLE),
    (b"\x80", _PICKLE),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself; run `git lfs pull` or download it"),
    (b"<", "is a web page, not a checkpoint: the download failed (a login may be needed); download it again"),
)


@dataclass(frozen=True)
class Header:
    """The header of one safetensors file of `size` bytes.

    By tensor: `dtypes` as the format spells them ("F16"), `shapes`, and `extents`, the first byte and the byte after
    the last from the start of the file. `metadata` are free-form texts.
    """

    path: Path
    size: int
    dtypes: Mapping[str, str]
    shapes: TensorShapes
    extents: Mapping[str, tuple[int, int]]
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_header(path: Path) -> Header:
    """The header of a safetensors file, checked against the size of the file. Raises CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; check the name, or download it again")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(32)
            _refuse_other_formats(path, start)
            length = int.from_bytes(start[:8], "little")
            if size < 8 or length > MAX_HEADER:
                raise CheckpointError(f"{path} is not a safetensors file; download it again")
            if 8 + length > size:
                raise CheckpointError(f"{path} is cut short inside its header; download it again")
            file.seek(8)
            document = json.loads(file.read(length))
        return _parsed(path, size, 8 + length, document)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); check the disk and the permissions") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise CheckpointError(f"{path} has a damaged header; download it again") from None


def _refuse_other_formats(path: Path, start: bytes) -> None:
    if not start:
        raise CheckpointError(f"{path} is empty; download it again")
    for magic, sentence in _NOT_SAFETENSORS:
        if start.startswith(magic) and start[8:9] != b"{":
            raise CheckpointError(f"{path} {sentence}")


def _parsed(path: Path, size: int, data_start: int, document: dict[str, Any]) -> Header:
    metadata = document.pop("__metadata__", None) or {}
    end, rows = data_start, document.items()
    for name, row in rows:
        first, last = (operator.index(place) for place in row["data_offsets"])
        shape, item = [operator.index(side) for side in row["shape"]], _ITEM_SIZE.get(row["dtype"])
        if min(first, last - first, *shape) < 0 or (item is not None and last - first != math.prod(shape) * item):
            raise CheckpointError(f"{path} has a damaged header at the tensor {name}; download it again")
        end = max(end, data_start + last)
    if end > size:
        raise CheckpointError(f"{path} is cut short: it has {size:,} of {end:,} bytes; download it again")
    if not document:
        raise CheckpointError(f"{path} contains no tensor; download it again")
    return Header(
        path,
        size,
        {name: row["dtype"] for name, row in rows},
        {name: tuple(row["shape"]) for name, row in rows},
        {name: (data_start + row["data_offsets"][0], data_start + row["data_offsets"][1]) for name, row in rows},
        {str(name): str(value) for name, value in metadata.items()},
    )


def read_config(path: Path) -> Config:
    """The JSON object in a file. Raises CheckpointError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; download the whole model folder again") from None
    except (OSError, ValueError, RecursionError):
        raise CheckpointError(f"{path} is damaged; download it again") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{path} is damaged: it must contain a JSON object; download it again")
    return document


# ---------------------------------------------------------------------------------------------- diffusers folders

NETWORK_WEIGHTS = "diffusion_pytorch_model"
TEXT_WEIGHTS = "model"


def weight_files(folder: Path, stem: str) -> list[Path]:
    """The safetensors files of one component: one file, or the shards of an index; full precision before a variant."""
    names = whole_weights((path.name for path in folder.glob(f"{stem}*")), stem)
    if names and names[0].endswith(".json"):
        shards = read_config(folder / names[0]).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise CheckpointError(f"{folder / names[0]} is damaged: it has no shards; download it again")
        return sorted({folder / Path(str(shard)).name for shard in shards.values()})
    if names:
        return [folder / names[0]]
    if any(folder.glob("*.bin")) or any(folder.glob("*.ckpt")):
        raise CheckpointError(
            f"{folder} has pickled weights only, which can run arbitrary code and are never opened; use its safetensors"
        )
    raise CheckpointError(f"{folder / stem}.safetensors is missing; download the whole model folder again")


def whole_weights(names: Iterable[str], stem: str, *, half_first: bool = False) -> list[str]:
    """The names that contain all weights of a component (a file, or the index of its shards), best first.

    Variants other than fp16 and bf16 come last: `non_ema` weights give worse pictures. Names with another stem, like
    diffusion_pytorch_model_old, are left out.
    """
    pattern = re.compile(rf"{stem}(?:\.(\w+))?\.safetensors(?:\.index(?:\.(\w+))?\.json)?")
    variants = {name: match[1] or match[2] or "" for name in names if (match := pattern.fullmatch(name))}
    order = ["fp16", "", "bf16"] if half_first else ["", "fp16", "bf16"]
    rank = {variant: i for i, variant in enumerate(order)}
    return sorted(variants, key=lambda name: (rank.get(variants[name], len(rank)), name))


def component_headers(folder: Path, stem: str) -> list[Header]:
    """The headers of all files of one component. Raises CheckpointError."""
    return [read_header(path) for path in weight_files(folder, stem)]


def folder_family(folder: Path) -> str:
    """The family of a diffusers folder, by the UNet's config. Raises CheckpointError for an unusable one."""
    if not (folder / "unet" / "config.json").is_file():
        raise CheckpointError(_without_unet(folder))
    config = read_config(folder / "unet" / "config.json")
    name = config.get("_class_name")
    if name == "UNet2DModel":
        return "pocket"
    if name != "UNet2DConditionModel":
        raise CheckpointError(f"{folder} has a network of the class {name!r}; use an SD 1.x, SD 2.x or SDXL model")
    _refuse_input_channels(folder, config.get("in_channels", 4))
    if config.get("quantization_config"):
        raise CheckpointError(f"{folder} is quantized, which leaves no gradients; use the model in fp16 or fp32")
    if config.get("addition_embed_type") == "text_time":
        if not (folder / "text_encoder").is_dir() and (folder / "text_encoder_2").is_dir():
            raise CheckpointError(f"{folder} {_REFINER}")
        return "sdxl"
    if config.get("class_embed_type") or config.get("addition_embed_type"):
        raise CheckpointError(f"{folder} {_UNCLIP}")
    return "sd2" if config.get("use_linear_projection") else "sd15"


def _without_unet(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} does not exist; check the name, or download it again"
    if (folder / "transformer").is_dir():
        return f"{folder} has a transformer instead of a UNet (like SD3 and Flux); use an SD 1.x, SD 2.x or SDXL model"
    return f"{folder} is not a model folder: unet/config.json is missing; download the whole model folder again"


# ---------------------------------------------------------------------------------------------- single files

UNET = "model.diffusion_model."
VAE = "first_stage_model."
TEXT_ENCODERS = {
    "sd15": ("cond_stage_model.transformer.",),
    "sd2": ("cond_stage_model.model.",),
    "sdxl": ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
}


def has_text(family: str) -> bool:
    """Whether models of the family read prompts."""
    return family in TEXT_ENCODERS


_REFINER = "is the SDXL refiner, which only adds details; use the SDXL base model"
_UNCLIP = "is an unCLIP model, which is conditioned on an image embedding; use a plain SD 1.x, SD 2.x or SDXL model"
_INPUTS = {
    5: "is a depth-to-image model (5 input channels)",
    7: "is an upscaler (7 input channels)",
    8: "is an InstructPix2Pix model (8 input channels)",
    9: "is an inpainting model (9 input channels)",
}
_OTHER_KINDS = (
    (r"lora_unet_|lora_te|.*[._]lora[_.](A|B|up|down)\b|.*\.(hada|lokr)_", "is a LoRA, an addition to a model"),
    (r"emb_params$|string_to_param|clip_[lg]$", "is a textual inversion, an embedding of words"),
    (r"control_model\.|controlnet_", "is a ControlNet, an addition to a model"),
    (r".*motion_modules\.", "is an AnimateDiff motion module, an addition to a model"),
    (r"(model\.diffusion_model\.)?joint_blocks\.", "is an SD3 model"),
    (r"(model\.diffusion_model\.)?(double_blocks|double_stream_blocks)\.", "is a Flux model"),
    (r"edm_(mean|vpred)", "is an EDM model (Playground 2.5, CosXL)"),
    (r"scaled_fp8|.*\.(scale_weight|absmax|quant_state)\b", "is quantized, which leaves no gradients"),
    (r"ip_adapter\.|image_proj\.", "is an IP-Adapter, an addition to a model"),
)
_SINGLE_COMPONENTS = (
    (r"model\.diffusion_model\.input_blocks\.|input_blocks\.|down_blocks\.", "contains only the UNet"),
    (r"first_stage_model\.|encoder\.conv_in\.|decoder\.conv_in\.", "contains only the VAE"),
    (r"text_model\.|transformer\.resblocks\.|cond_stage_model\.|conditioner\.", "contains only a text encoder"),
)


def file_family(header: Header) -> str:
    """The family of a single file in LDM layout, by its header. Raises CheckpointError for an unusable one."""
    path, shapes = header.path, header.shapes
    for pattern, what in _OTHER_KINDS:
        if _any_key(shapes, pattern):
            raise CheckpointError(f"{path} {what}; use the checkpoint of an SD 1.x, SD 2.x or SDXL model")
    conv_in = shapes.get(f"{UNET}input_blocks.0.0.weight")
    if conv_in is None or not (_has(shapes, VAE) and _has(shapes, "cond_stage_model.", "conditioner.")):
        raise CheckpointError(_incomplete(path, shapes))
    _refuse_input_channels(path, conv_in[1] if len(conv_in) == 4 else 0)
    if _has(shapes, *TEXT_ENCODERS["sdxl"][1:]):
        return "sdxl"
    if _has(shapes, "conditioner.embedders.0.model."):
        raise CheckpointError(f"{path} {_REFINER}")
    if _has(shapes, f"{UNET}label_emb."):
        raise CheckpointError(f"{path} {_UNCLIP}")
    if _has(shapes, *TEXT_ENCODERS["sd2"]):
        return "sd2"
    return "sd15"


def _refuse_input_channels(path: Path, channels: Any) -> None:
    if channels != 4:
        known = isinstance(channels, int) and channels in _INPUTS
        what = _INPUTS[channels] if known else f"has {channels} input channels, expected 4"
        raise CheckpointError(f"{path} {what}; use a text-to-image SD 1.x, SD 2.x or SDXL model")


def _incomplete(path: Path, shapes: TensorShapes) -> str:
    present = [what for pattern, what in _SINGLE_COMPONENTS if _any_key(shapes, pattern)]
    advice = "use a full checkpoint with UNet, VAE and text encoder"
    if not present:
        return f"{path} is of an unknown kind (its first tensor is {next(iter(sorted(shapes)))}); {advice}"
    if len(present) == 1:
        return f"{path} {present[0]}; {advice}"
    missing = [what for what in ("UNet", "VAE", "text encoder") if not any(what in text for text in present)]
    return f"{path} lacks the {' and the '.join(missing)}; {advice}"


def _has(shapes: TensorShapes, *prefixes: str) -> bool:
    return any(name.startswith(prefixes) for name in shapes)


def _any_key(shapes: TensorShapes, pattern: str) -> bool:
    compiled = re.compile(pattern)
    return any(compiled.match(name) for name in shapes)


def declared_prediction(header: Header) -> str | None:
    """The training target that a single file declares, "epsilon" or "v_prediction", or None.

    Sources, in this order: an empty tensor `v_pred` (SDXL models trained on v), the ModelSpec metadata, and the
    training YAML with the same name beside the file.
    """
    if "v_pred" in header.shapes:
        return "v_prediction"
    metadata = header.metadata
    declared = (metadata.get("modelspec.prediction_type") or metadata.get("prediction_type") or "").lower()
    yaml = header.path.with_suffix(".yaml")
    if not declared and yaml.is_file():
        match = re.search(r"^\s*parameterization:\s*[\"']?(\w+)", yaml.read_text("utf-8", "replace"), re.MULTILINE)
        declared = match.group(1) if match else "epsilon"  # the original code's default
    return {"v": "v_prediction", "v_prediction": "v_prediction", "eps": "epsilon", "epsilon": "epsilon"}.get(declared)


# ---------------------------------------------------------------------------------------------- configs from shapes


@dataclass
class _Level:
    """One resolution of a UNet: output channels of its resnets, and how many transformer blocks follow each of them."""

    channels: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)


def unet_config(header: Header, family: str) -> Config:
    """The config of diffusers' UNet2DConditionModel for the UNet in a single file.

    All of it follows from the shapes except the number of heads: SD 1.x has 8 everywhere, SD 2.x and SDXL have heads
    of 64 channels (diffusers' `attention_head_dim` is their number, despite its name). Raises CheckpointError.
    """
    shapes = {name[len(UNET) :]: shape for name, shape in header.shapes.items() if name.startswith(UNET)}
    levels = _unet_levels(shapes)
    mid_depth = _depth(shapes, "middle_block.1.")
    if not mid_depth or not all(level.channels for level in levels) or "out.2.weight" not in shapes:
        raise CheckpointError(f"{header.path} has a UNet of an unknown shape; use an SD 1.x, SD 2.x or SDXL model")
    width = [level.channels[0] for level in levels]
    depth = [level.depths[0] for level in levels]
    config: Config = {
        "sample_size": {"sd15": 64, "sd2": 64, "sdxl": 128}[family],
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "block_out_channels": width,
        "down_block_types": ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depth],
        "up_block_types": ["CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(depth)],
        "layers_per_block": len(levels[0].channels),
        "transformer_layers_per_block": [d or 1 for d in depth[:-1]] + [depth[-1] or mid_depth],
        "cross_attention_dim": shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1],
        "attention_head_dim": 8 if family == "sd15" else [max(1, channels // 64) for channels in width],
        "use_linear_projection": len(shapes["middle_block.1.proj_in.weight"]) == 2,
    }
    if "label_emb.0.0.weight" in shapes:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": shapes["label_emb.0.0.weight"][1],
        }
    return config


def _unet_levels(shapes: TensorShapes) -> list[_Level]:
    levels = [_Level()]
    for i in count(1):
        if f"input_blocks.{i}.0.op.weight" in shapes:
            levels.append(_Level())
            continue
        resnet = shapes.get(f"input_blocks.{i}.0.in_layers.2.weight")
        if resnet is None:
            return levels
        levels[-1].channels.append(resnet[0])
        levels[-1].depths.append(_depth(shapes, f"input_blocks.{i}.1."))
    raise AssertionError("unreachable: count() has no end")


def _depth(shapes: TensorShapes, prefix: str) -> int:
    return _count(shapes, prefix + "transformer_blocks.{}.attn1.to_q.weight")


def _count(shapes: TensorShapes, pattern: str) -> int:
    """How many of pattern.format(0), pattern.format(1), ... exist without a gap."""
    return sum(1 for _ in takewhile(lambda i: pattern.format(i) in shapes, count()))


def vae_config(header: Header, family: str) -> Config:
    """The config of diffusers' AutoencoderKL for the VAE in a single file. Raises CheckpointError."""
    shapes = {name[len(VAE) :]: shape for name, shape in header.shapes.items() if name.startswith(VAE)}
    levels = _count(shapes, "encoder.down.{}.block.0.conv1.weight")
    needed = ("encoder.conv_in.weight", "decoder.conv_in.weight", "decoder.conv_out.weight")
    if not levels or any(name not in shapes for name in needed):
        raise CheckpointError(f"{header.path} has a damaged or unknown VAE; download it again")
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "block_out_channels": [shapes[f"encoder.down.{i}.block.0.conv1.weight"][0] for i in range(levels)],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": _count(shapes, "encoder.down.0.block.{}.conv1.weight"),
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "sample_size": 1024 if family == "sdxl" else 512,
        "scaling_factor": 0.13025 if family == "sdxl" else 0.18215,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
    }


def text_config(shapes: TensorShapes, *, open_clip: bool, skip_last: bool) -> Config:
    """The config of transformers' CLIPTextModel for tensors named as in that class, without a `text_model.` prefix.

    Heads have 64 channels in all text encoders of Stable Diffusion. OpenAI's CLIP has the quick GELU, OpenCLIP the
    exact one. `skip_last` leaves out the last layer, as SD 2.x does.
    """
    width = shapes["embeddings.token_embedding.weight"][1]
    layers = _count(shapes, "encoder.layers.{}.mlp.fc1.weight")
    return {
        "vocab_size": shapes["embeddings.token_embedding.weight"][0],
        "max_position_embeddings": shapes["embeddings.position_embedding.weight"][0],
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": layers - 1 if skip_last else layers,
        "num_attention_heads": max(1, width // 64),
        "hidden_act": "gelu" if open_clip else "quick_gelu",
        "projection_dim": shapes.get("text_projection.weight", (width,))[0],
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }


SCHEDULE: Config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
"""The noise schedule of all SD 1.x, SD 2.x and SDXL checkpoints, which single files do not contain; 1000 steps."""


def file_schedule(header: Header) -> Config:
    """The scheduler config of a single file; "prediction_type" is None if it has to be measured."""
    return SCHEDULE | {
        "prediction_type": declared_prediction(header),
        "rescale_betas_zero_snr": "ztsnr" in header.shapes,
    }


# ---------------------------------------------------------------------------------------------- identity

_DIGEST_BYTES = 256
"""Bytes of each tensor that `digest` reads."""


def digest(headers: Sequence[Header]) -> str:
    """sha256 that distinguishes checkpoints, in milliseconds: a key for caches, not a proof of integrity.

    Hashes the name, number format and shape of every tensor, and 256 bytes from its middle: training or merging changes
    every number of a tensor.
    """
    sha = hashlib.sha256()
    for header in headers:
        with header.path.open("rb") as file:
            for name, (first, last) in header.extents.items():
                sha.update(f"{name}\0{header.dtypes[name]}\0{header.shapes[name]}\0".encode())
                file.seek(max(first, (first + last - _DIGEST_BYTES) // 2))
                sha.update(file.read(min(_DIGEST_BYTES, last - first)))
    return sha.hexdigest()
