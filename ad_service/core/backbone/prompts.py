"""Prompts as Stable Diffusion reads them: CLIP's tokens, and the encodings of one or several prompts.

The merges in `clip_merges.txt.gz` are those of OpenAI's CLIP (github.com/openai/CLIP, MIT license), which all text
encoders of Stable Diffusion use. Single-file checkpoints contain no tokenizer.
"""

from __future__ import annotations

import functools
import gc
import gzip
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from torch import Tensor, nn

from ad_service.core.backbone import memory
from ad_service.core.backbone.conditioning import Conditioning
from ad_service.core.backbone.devices import free_memory
from ad_service.core.backbone.weights import Parts
from ad_service.core.steps import checkpoint

BEGIN, END = 49406, 49407
"""CLIP's token ids that begin and end a text."""

CHUNK = 75
"""Tokens that a text encoder reads at once, beside those that begin and end the text."""

MERGES = Path(__file__).parent / "clip_merges.txt.gz"


@functools.cache
def _tokenizer() -> Tokenizer:
    """CLIP's tokenizer: byte pairs of lower-case words, without its begin and end."""
    lines = gzip.decompress(MERGES.read_bytes()).decode().splitlines()
    merges = [(first, second) for first, second in map(str.split, lines)]
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge) for merge in merges)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer = Tokenizer(BPE(vocabulary, merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    word = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(word, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _byte_letters() -> list[str]:
    """The letter for each byte in the order of CLIP's vocabulary: printable ones are themselves."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def token_ids(prompt: str) -> list[int]:
    """CLIP's ids of a prompt, without those of begin and end."""
    ids: list[int] = _tokenizer().encode(prompt).ids
    return ids


def chunks_of(prompt: str) -> list[list[int]]:
    """The ids of a prompt in chunks of at most CHUNK tokens; an empty prompt is one empty chunk."""
    ids = token_ids(prompt)
    return [ids[i : i + CHUNK] for i in range(0, len(ids), CHUNK)] or [[]]


def length_note(prompt: str) -> str | None:
    """What the artist should know of a prompt that is read in several chunks."""
    ids = token_ids(prompt)
    if len(ids) <= CHUNK:
        return None
    return (
        f"The prompt has {len(ids)} tokens (words and parts of words), and the model reads {CHUNK} at once; it was "
        f"read in {len(chunks_of(prompt))} parts"
    )


@torch.no_grad()
def encode_prompts(
    parts: Parts, prompts: Sequence[str], device: torch.device, dtype: torch.dtype
) -> list[Conditioning]:
    """The prompts as the UNet reads them; "" is the empty one. A model without text gets empty conditionings.

    The text encoders are loaded one after the other and freed. They run in float32, which is exact, and on the CPU if
    the device has no room beside the UNet; the result has `dtype` and is on the device. Each chunk of a long prompt is
    encoded by itself, and the chunks are concatenated; the pooled encoding is the first chunk's.
    """
    tokens: list[list[Tensor]] = [[] for _ in prompts]
    pooled: list[Tensor | None] = [None for _ in prompts]
    for i, part in enumerate(parts.texts):
        padding = 0 if parts.family == "sd2" or i == 1 else END  # OpenCLIP's tokenizer pads with 0
        free = free_memory(device)
        where = device if free is None or 4 * part.parameters < memory.SHARE * free else torch.device("cpu")
        encoder = part.load(where, torch.float32)
        for k, prompt in enumerate(prompts):
            checkpoint()
            hidden, first = _encode(encoder, chunks_of(prompt), padding, where, penultimate=parts.family == "sdxl")
            tokens[k].append(hidden.to(device, dtype))
            pooled[k] = first.to(device, dtype) if i == 1 and first is not None else None
        del encoder
        gc.collect()
    return [
        Conditioning(torch.cat(found, dim=-1) if found else None, first)
        for found, first in zip(tokens, pooled, strict=True)
    ]


def _encode(
    encoder: nn.Module, chunks: list[list[int]], padding: int, device: torch.device, *, penultimate: bool
) -> tuple[Tensor, Tensor | None]:
    """The hidden states (1, 77 n, d) of n chunks, and the pooled encoding (1, p) of the first if there is one."""
    states, pooled = [], None
    for chunk in chunks:
        ids = torch.tensor([[BEGIN, *chunk, END, *[padding] * (CHUNK - len(chunk))]], device=device)
        output = encoder(ids, output_hidden_states=True)
        states.append(output.hidden_states[-2] if penultimate else output.last_hidden_state)
        pooled = getattr(output, "text_embeds", None) if pooled is None else pooled
    return torch.cat(states, dim=1), pooled
