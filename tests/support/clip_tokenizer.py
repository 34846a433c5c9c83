"""transformers' tokenizer of CLIP, from the merges that ship with the core."""

from __future__ import annotations

import functools
import gzip
import inspect
import json
import tempfile
from pathlib import Path

from transformers import CLIPTokenizer

from ad_service.core.backbone.prompts import MERGES


@functools.cache
def tokenizer(padding: int) -> CLIPTokenizer:
    """Reads 77 tokens and pads with this id."""
    lines = gzip.decompress(MERGES.read_bytes()).decode().splitlines()
    base = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in base] + [chr(256 + i) for i in range(256 - len(base))]
    words = [*letters, *(f"{x}</w>" for x in letters), *(line.replace(" ", "") for line in lines)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    pad = next(word for word, i in vocabulary.items() if i == padding)
    if "vocab" in inspect.signature(CLIPTokenizer).parameters:
        merges = [tuple(line.split()) for line in lines]
        return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad, model_max_length=77)
    with tempfile.TemporaryDirectory() as folder:  # transformers 4
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary))
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n" + "\n".join(lines) + "\n")
        return CLIPTokenizer.from_pretrained(folder, pad_token=pad, model_max_length=77)
