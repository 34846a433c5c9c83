"""Weights: from the tensors of a checkpoint to frozen networks on a device, one component at a time.

A module is built without memory (on torch's meta device) and then gets its tensors directly from the file, in the
number format and on the device where they stay: there is no second copy, except of the attention inputs of an OpenCLIP
text encoder while it is loaded. Before weights are read, every name and shape is compared with the architecture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ad_service.core.backbone import checkpoints
from ad_service.core.backbone.checkpoints import CheckpointError, Config, Header
from ad_service.core.steps import checkpoint

Tensors = dict[str, Tensor]
META = torch.device("meta")


@dataclass(frozen=True)
class Part:
    """One network of a checkpoint, not loaded yet: `title` names it in errors, `build` makes its module.

    `convert` maps the file's tensors (those that start with `prefix`) to the module's by name. It also has to work on
    tensors without data.
    """

    title: str
    headers: tuple[Header, ...]
    build: Callable[[], nn.Module]
    convert: Callable[[Tensors], Tensors]
    prefix: str = ""

    @property
    def files(self) -> list[Path]:
        return [header.path for header in self.headers]

    @property
    def parameters(self) -> int:
        """Numbers in its tensors, from the headers."""
        shapes = (shape for h in self.headers for name, shape in h.shapes.items() if name.startswith(self.prefix))
        return sum(math.prod(shape) for shape in shapes)

    def check(self) -> Any:
        """The network without memory. Raises CheckpointError if a tensor is missing or has another shape."""
        module = self._built()
        self._fitted(module, self._shells())
        return module

    def load(self, device: torch.device, dtype: torch.dtype) -> Any:
        """The network in evaluation mode with frozen parameters. Raises CheckpointError."""
        module = self._built()
        module.load_state_dict(self._fitted(module, dict(self._tensors(device, dtype))), assign=True)
        _fill_position_ids(module, device)
        return module.requires_grad_(False).eval()

    def find_unusable_values(self) -> Iterator[str]:
        """Names of tensors with NaN or infinity; reads all weights, one tensor at a time."""
        for name, tensor in self._tensors(torch.device("cpu"), torch.float32):
            if not bool(torch.isfinite(tensor).all()):
                yield name

    def _built(self) -> Any:
        try:
            with META:
                return self.build()
        except Exception as error:  # a wrong config can raise anything in a constructor
            raise CheckpointError(
                f"{self.files[0]}: the {self.title} has a config that cannot be built ({error}); download it again"
            ) from None

    def _shells(self) -> Tensors:
        return {
            name: torch.empty(shape, device=META)
            for header in self.headers
            for name, shape in header.shapes.items()
            if name.startswith(self.prefix)
        }

    def _tensors(self, device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
        for header in self.headers:
            names = [name for name in header.shapes if name.startswith(self.prefix)]
            try:
                with safe_open(header.path, framework="pt") as file:
                    for name in names:
                        checkpoint()
                        yield name, _placed(file.get_tensor(name), device, dtype)
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{header.path} cannot be read ({error}); download it again") from None

    def _fitted(self, module: nn.Module, tensors: Tensors) -> Tensors:
        """The module's tensors, from the file's. Raises CheckpointError with the first tensor that does not fit."""
        wanted = {name: shape.shape for name, shape in module.state_dict().items() if not _is_position_ids(name)}
        try:
            given = self.convert(tensors)
        except KeyError as error:
            raise CheckpointError(self._misfit(f"lacks the tensor {error.args[0]}")) from None
        except (IndexError, ValueError, RuntimeError) as error:
            raise CheckpointError(self._misfit(f"has a tensor of an unknown shape ({error})")) from None
        missing = [name for name in wanted if name not in given]
        if missing:
            raise CheckpointError(self._misfit(f"lacks {len(missing)} of {len(wanted)} tensors, first {missing[0]}"))
        return {name: self._shaped(name, given[name], shape) for name, shape in wanted.items()}

    def _shaped(self, name: str, tensor: Tensor, shape: torch.Size) -> Tensor:
        """The tensor in the wanted shape: a 1x1 convolution is a linear layer and vice versa."""
        if tensor.shape == shape:
            return tensor
        if [n for n in tensor.shape if n != 1] == [n for n in shape if n != 1]:
            return tensor.reshape(shape)
        raise CheckpointError(self._misfit(f"has {name} of the shape {tuple(tensor.shape)}, expected {tuple(shape)}"))

    def _misfit(self, what: str) -> str:
        return f"{self.files[0]}: the {self.title} {what}; it is damaged or of another kind; download it again"


def _placed(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A copy of a tensor (the file's is a view of the disk), convolutions in the fastest memory order."""
    dtype = dtype if tensor.is_floating_point() else tensor.dtype
    fast = tensor.ndim == 4 and device.type != "mps"
    return tensor.to(device, dtype, copy=True, memory_format=torch.channels_last if fast else torch.preserve_format)


def _is_position_ids(name: str) -> bool:
    return name.endswith("position_ids")


def _fill_position_ids(module: nn.Module, device: torch.device) -> None:
    """Fill the text encoders' buffer of position numbers, which checkpoints need not contain."""
    for name, buffer in list(module.named_buffers()):
        if buffer.is_meta:
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, torch.arange(buffer.shape[-1], device=device)[None])


# ---------------------------------------------------------------------------------------------- checkpoints


@dataclass(frozen=True)
class Parts:
    """The networks of a checkpoint, opened but not loaded; `schedule` is its scheduler config."""

    path: Path
    family: str
    unet: Part
    vae: Part
    texts: tuple[Part, ...]
    schedule: Config

    @property
    def parts(self) -> tuple[Part, ...]:
        return (*self.texts, self.unet, self.vae)

    def digest(self) -> str:
        """A key of these weights for caches; see `checkpoints.digest`."""
        headers = {header.path: header for part in self.parts for header in part.headers}
        return checkpoints.digest(list(headers.values()))


def open_parts(path: Path, family: str | None = None) -> Parts:
    """Open a diffusers folder or a single safetensors file. Raises CheckpointError, also for another family."""
    if path.is_dir():
        found = checkpoints.folder_family(path)
        _expect(path, found, family)
        return _folder_parts(path, found)
    header = checkpoints.read_header(path)
    found = checkpoints.file_family(header)
    _expect(path, found, family)
    try:
        return file_parts(header, found)
    except (IndexError, KeyError, ValueError, RuntimeError):
        raise CheckpointError(f"{path} has tensors of unknown shapes; download it again") from None


def _expect(path: Path, found: str, expected: str | None) -> None:
    if expected is not None and found != expected:
        raise CheckpointError(f"{path} is of the family {found}, not {expected}; use it as {found}")


def _folder_parts(folder: Path, family: str) -> Parts:
    unet = checkpoints.read_config(folder / "unet" / "config.json")
    vae = checkpoints.read_config(folder / "vae" / "config.json")
    if vae.get("_class_name") != "AutoencoderKL":
        raise CheckpointError(
            f"{folder / 'vae'} is of the class {vae.get('_class_name')!r}; AutoencoderKL is expected, "
            "use the VAE that belongs to the model"
        )
    network = UNet2DModel if family == "pocket" else UNet2DConditionModel
    names = {"pocket": (), "sdxl": ("text_encoder", "text_encoder_2")}.get(family, ("text_encoder",))
    return Parts(
        folder,
        family,
        _network(folder / "unet", "UNet", network, unet),
        _network(folder / "vae", "VAE", AutoencoderKL, vae),
        tuple(_folder_text(folder / name, projects=name == "text_encoder_2") for name in names),
        checkpoints.read_config(folder / "scheduler" / "scheduler_config.json"),
    )


def _network(folder: Path, title: str, kind: type[nn.Module], config: Config) -> Part:
    headers = checkpoints.component_headers(folder, checkpoints.NETWORK_WEIGHTS)
    _refuse_missing_layers(folder, config, headers)
    return Part(title, tuple(headers), lambda: kind.from_config(config), _renamed_attention)  # type: ignore[attr-defined]


def _refuse_missing_layers(folder: Path, config: Config, headers: Sequence[Header]) -> None:
    """Raises CheckpointError for a config with more layers than there are tensors, which would take hours to build."""
    tensors = sum(len(header.shapes) for header in headers)
    for key in ("layers_per_block", "transformer_layers_per_block", "num_hidden_layers"):
        counts = config.get(key, 0)
        for count in counts if isinstance(counts, list) else [counts]:
            if isinstance(count, int) and count > tensors:
                raise CheckpointError(
                    f"{folder / 'config.json'} has {key} {count}, but the weights have {tensors} tensors; "
                    "download the whole model folder again"
                )


def _folder_text(folder: Path, projects: bool) -> Part:
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is missing: the model has no text encoder; download the whole folder again")
    config = checkpoints.read_config(folder / "config.json")
    headers = tuple(checkpoints.component_headers(folder, checkpoints.TEXT_WEIGHTS))
    _refuse_missing_layers(folder, config, headers)
    return _text_part(headers, "", config, projects, _without_wrapper)


def file_parts(header: Header, family: str) -> Parts:
    """The networks of a single file in LDM layout, with configs from its header."""
    unet = checkpoints.unet_config(header, family)
    vae = checkpoints.vae_config(header, family)
    unet_part = Part(
        "UNet",
        (header,),
        lambda: UNet2DConditionModel.from_config(unet),
        lambda tensors: convert_ldm_unet_checkpoint(tensors, unet),
        checkpoints.UNET,
    )
    vae_part = Part(
        "VAE",
        (header,),
        lambda: AutoencoderKL.from_config(vae),
        lambda tensors: _renamed_attention(convert_ldm_vae_checkpoint(tensors, vae)),
        checkpoints.VAE,
    )
    texts = tuple(_file_text(header, prefix, family) for prefix in checkpoints.TEXT_ENCODERS[family])
    return Parts(header.path, family, unet_part, vae_part, texts, checkpoints.file_schedule(header))


def _file_text(header: Header, prefix: str, family: str) -> Part:
    open_clip = prefix.endswith("model.")
    shells = {n: torch.empty(s, device=META) for n, s in header.shapes.items() if n.startswith(prefix)}
    rename = _from_open_clip if open_clip else _without_wrapper
    try:
        shapes = {name: tuple(t.shape) for name, t in rename(_strip(shells, prefix)).items()}
        # SD 2.x reads the output of OpenCLIP's 23rd layer; most files contain the 24th too
        layers = sum(name.endswith(".mlp.fc1.weight") for name in shapes)
        skip_last = family == "sd2" and layers != 23
        config = checkpoints.text_config(shapes, open_clip=open_clip, skip_last=skip_last)
    except KeyError as error:
        raise CheckpointError(
            f"{header.path} lacks {error.args[0]} of the text encoder {prefix}; use a full checkpoint"
        ) from None
    return _text_part((header,), prefix, config, open_clip and family == "sdxl", rename)


# ---------------------------------------------------------------------------------------------- names


def _text_part(
    headers: tuple[Header, ...], prefix: str, config: Config, projects: bool, rename: Callable[[Tensors], Tensors]
) -> Part:
    kind = CLIPTextModelWithProjection if projects else CLIPTextModel

    def build() -> nn.Module:
        module: nn.Module = kind(CLIPTextConfig(**config))
        return module

    def convert(tensors: Tensors) -> Tensors:
        """Names with and without `text_model.`: it depends on the version of transformers."""
        named = rename(_strip(tensors, prefix))
        return named | {f"text_model.{name}": tensor for name, tensor in named.items()}

    return Part("text encoder", headers, build, convert, prefix)


def _strip(tensors: Mapping[str, Tensor], prefix: str) -> Tensors:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _without_wrapper(tensors: Tensors) -> Tensors:
    return _strip(tensors, "text_model.")


_OLD_ATTENTION = re.compile(r"(\.attentions\.\d+)\.(query|key|value|proj_attn)\.")
_NEW_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _renamed_attention(tensors: Tensors) -> Tensors:
    """Current names of the VAE's attention layers: early diffusers files (SD 1.5's VAE) have `query`; single files that
    were converted back from diffusers have `to_q`, which diffusers' converter turns into `to_to_q`."""
    return {
        _OLD_ATTENTION.sub(lambda m: f"{m[1]}.{_NEW_ATTENTION[m[2]]}.", name).replace(".to_to_", ".to_"): tensor
        for name, tensor in tensors.items()
    }


def _from_open_clip(tensors: Tensors) -> Tensors:
    """OpenCLIP's text tower under the names of transformers' CLIPTextModel."""
    width = tensors["ln_final.weight"].shape[0]
    model = SimpleNamespace(config=SimpleNamespace(hidden_size=width))
    return _without_wrapper(convert_open_clip_checkpoint(model, tensors, prefix=""))
