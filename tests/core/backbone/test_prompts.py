"""Prompts: CLIP's tokens, encodings as diffusers' pipelines make them, long prompts in chunks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ad_service.core.backbone import memory, prompts, weights
from ad_service.core.backbone.prompts import CHUNK, chunks_of, encode_prompts, length_note, token_ids
from tests.support import fake_device, tiny_checkpoints
from tests.support.clip_tokenizer import tokenizer
from tests.support.pipelines import pipeline

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("prompt", "ids"),
    [
        ("", []),
        ("a photo of a cat", [320, 1125, 539, 320, 2368]),  # as OpenAI's CLIP and every Stable Diffusion read it
        ("A  Photo\nof a CAT", [320, 1125, 539, 320, 2368]),
        ("hello world!", [3306, 1002, 256]),
    ],
)
def test_prompts_have_the_tokens_of_clip(prompt: str, ids: list[int]) -> None:
    assert token_ids(prompt) == ids


@pytest.mark.parametrize(
    "prompt", ["mossy cobblestones, it's wet", "Grüne Fliesen 12x12", "苔の石", "🧱 bricks", "\0 a\tb"]
)
def test_any_text_has_the_tokens_of_transformers(prompt: str) -> None:
    assert token_ids(prompt) == tokenizer(0)(prompt).input_ids[1:-1]


def test_a_long_prompt_is_read_in_chunks_with_a_note() -> None:
    assert chunks_of("") == [[]]
    assert [len(chunk) for chunk in chunks_of("stone " * 75)] == [75]
    assert [len(chunk) for chunk in chunks_of("stone " * 160)] == [75, 75, 10]
    assert length_note("stone " * 75) is None
    note = length_note("stone " * 160)
    assert note is not None and "160 tokens" in note and "3 parts" in note


@pytest.mark.parametrize("family", ["sd15", "sd2", "sdxl"])
def test_prompts_are_encoded_as_by_diffusers(family: str, tmp_path: Path) -> None:
    model = tiny_checkpoints.tiny(family)
    parts = weights.open_parts(tiny_checkpoints.save_folder(model, tmp_path))
    prompt, negative = "mossy cobblestones", "blurry, text"
    ours, theirs_not = encode_prompts(parts, [prompt, negative], CPU, torch.float32)
    with torch.no_grad():
        encoded = pipeline(model).encode_prompt(
            prompt=prompt,
            device=CPU,
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
            negative_prompt=negative,
        )
    torch.testing.assert_close((ours.tokens, theirs_not.tokens), tuple(encoded[:2]), atol=1e-6, rtol=1e-6)
    if family == "sdxl":
        torch.testing.assert_close((ours.pooled, theirs_not.pooled), tuple(encoded[2:]), atol=1e-6, rtol=1e-6)
    else:
        assert ours.pooled is None


def test_the_first_chunk_of_a_long_prompt_is_encoded_like_a_short_one(tmp_path: Path) -> None:
    parts = weights.open_parts(tiny_checkpoints.tiny_sdxl(tmp_path))
    first = "stone " * CHUNK
    short, long = encode_prompts(parts, [first, first + "and moss"], CPU, torch.float32)
    assert short.tokens is not None and long.tokens is not None
    assert long.tokens.shape[1] == 2 * 77
    torch.testing.assert_close(long.tokens[:, :77], short.tokens)
    torch.testing.assert_close(long.pooled, short.pooled)


def test_text_encoders_run_on_the_cpu_where_the_device_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = weights.open_parts(tiny_checkpoints.tiny_sd15(tmp_path))
    device, loaded = fake_device.device(), list[str]()
    need = 4 * sum(p.numel() for p in tiny_checkpoints.tiny("sd15").texts["text_encoder"].parameters())
    load = weights.Part.load

    def watched(part: weights.Part, where: torch.device, dtype: torch.dtype) -> object:
        loaded.append(where.type)
        return load(part, CPU, dtype)

    monkeypatch.setattr(weights.Part, "load", watched)
    monkeypatch.setattr(prompts, "free_memory", lambda _: int(need / memory.SHARE) - 10_000)
    (short,) = encode_prompts(parts, ["moss"], device, torch.float32)
    assert loaded == ["cpu"]
    assert short.tokens is not None and short.tokens.device.type == device.type
