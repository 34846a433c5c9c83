"""The denoiser: its attention, its batches, its loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from ad_service.pocket.training.codec_start import PatchEncoder
from ad_service.pocket.training.crops import Source
from ad_service.pocket.training.denoiser import (
    damage,
    denoiser_batches,
    denoiser_loss,
    new_unet,
    noise_schedule,
    without_fine_skips,
)
from ad_service.pocket.training.in_context import (
    InContext,
    attention_layers,
    center_and_normalize,
    in_context,
    set_references,
)
from ad_service.pocket.training.loop import parameter_groups
from ad_service.pocket.training.statistics import measure, read_flag, write_flag
from tests.support.tiny_training import TINY, generator


def test_damage_changes_a_part_and_leaves_the_rest() -> None:
    clean, other = torch.randn(2, 4, 32, 32, generator=generator())
    before = clean.clone()
    changed = torch.stack([(damage(clean, other, generator(s)) != clean).any(0).float().mean() for s in range(40)])
    assert torch.equal(clean, before)
    assert (changed > 0).float().mean() > 0.9
    assert changed.mean() < 0.5


def test_noised_crop_reads_its_own_reference_and_no_other() -> None:
    torch.manual_seed(0)
    unet = new_unet(TINY).eval()
    nn.init.normal_(unet.conv_out.weight)
    batch = torch.randn(6, 6, 16, 16, generator=generator())
    times = torch.tensor([0, 0, 300, 300, 300, 300])

    def outputs(x: Tensor) -> Tensor:
        with torch.no_grad(), in_context(unet, 2):
            return unet(x, times).sample

    before = outputs(batch)
    other = batch.clone()
    other[1] += 1  # the second texture's reference: its crops are 4 and 5
    moved = (outputs(other) - before).abs().amax((1, 2, 3)) > 1e-4
    assert moved.tolist() == [False, True, False, False, True, True]


def test_noised_crop_may_read_the_reference_alone() -> None:
    x = torch.randn(2, 32, 4, 4, generator=generator())
    torch.manual_seed(0)
    layer = Attention(32, heads=1, dim_head=32, norm_num_groups=16, residual_connection=True)
    both, alone = (InContext(1, own)(layer, x) for own in (True, False))
    assert torch.allclose(both[0], alone[0])
    assert not torch.allclose(both[1], alone[1])


def test_centering_removes_what_all_tokens_share() -> None:
    x = torch.randn(2, 3, 10, 8, generator=generator())
    shared = torch.randn(2, 3, 1, 8, generator=generator(1))
    assert torch.allclose(center_and_normalize(x), center_and_normalize(x + 5 * shared), atol=1e-4)
    assert torch.allclose(center_and_normalize(x).norm(dim=-1), torch.ones(2, 3, 10))


def test_skip_connections_are_restored() -> None:
    torch.manual_seed(0)
    unet = new_unet(TINY).eval()
    nn.init.normal_(unet.conv_out.weight)
    x = torch.randn(1, 6, 16, 16, generator=generator())
    set_references(unet, 1)
    with torch.no_grad():
        before = unet(x, 5).sample
        with without_fine_skips(unet):
            cut = unet(x, 5).sample
        after = unet(x, 5).sample
    assert not torch.allclose(before, cut)
    assert torch.equal(before, after)


def test_attention_processors_are_restored() -> None:
    unet = new_unet(TINY)
    with in_context(unet, 1):
        assert all(isinstance(layer.processor, InContext) for layer in attention_layers(unet))
    processors = [layer.processor for layer in attention_layers(unet)]
    assert len(processors) == 11
    assert all(isinstance(p, AttnProcessor2_0) for p in processors)


def test_queries_start_like_keys_and_learn_more_slowly() -> None:
    unet = new_unet(TINY)
    layers = attention_layers(unet)
    assert all(torch.equal(layer.to_q.weight, layer.to_k.weight) for layer in layers)
    fast, slow = parameter_groups(unet, 1.0)
    assert len(slow["params"]) == 4 * len(layers)
    assert slow["rate"] < fast["rate"] == 1.0
    assert len(fast["params"]) + len(slow["params"]) == len(list(unet.parameters()))


def patch_encoder() -> PatchEncoder:
    return PatchEncoder(0.1 * torch.randn(6, 3, 4, 4, generator=generator()), torch.zeros(6))


def test_batches_follow_their_step_and_come_in_three_sizes(pictures: np.ndarray) -> None:
    batches = denoiser_batches(Source(torch.from_numpy(pictures)), patch_encoder(), TINY)
    first, again, other = batches[3], batches[3], batches[4]
    assert torch.equal(first.noised, again.noised)
    assert first.noised.shape != other.noised.shape or not torch.equal(first.noised, other.noised)
    found = {(len(b.reference), len(b.noised), b.noised.shape[-1]) for b in (batches[i] for i in range(40))}
    assert found == {(2, 4, 16), (1, 2, 24), (1, 2, 32)}


def test_v_of_a_damaged_window_leads_to_the_undamaged_one(pictures: np.ndarray) -> None:
    batches = denoiser_batches(Source(torch.from_numpy(pictures)), patch_encoder(), TINY)
    alphas = noise_schedule().alphas_cumprod
    for step in range(10):
        b = batches[step]
        a = alphas[b.times][:, None, None, None]
        x0 = a.sqrt() * b.noised - (1 - a).sqrt() * b.v
        # Noise is of unit variance where nothing was damaged.
        noise = (b.noised - a.sqrt() * x0) / (1 - a).sqrt()
        whole = ~b.damaged
        if whole.any():
            assert 0.8 < noise[whole].square().mean() < 1.2
        assert x0.abs().max() < 10


def test_loss_reports_each_kind_of_window(pictures: np.ndarray) -> None:
    code = patch_encoder()
    batches = denoiser_batches(Source(torch.from_numpy(pictures)), code, TINY)
    loss = denoiser_loss(new_unet(TINY), code, torch.device("cpu"))
    kinds: set[str] = set()
    for step in range(12):
        value, numbers = loss(batches[step])
        assert torch.isfinite(value)
        kinds |= set(numbers)
    assert kinds <= {"no_skips", "damaged", "t000", "t250", "t500", "t750"}
    assert "damaged" in kinds


def test_standardized_latents_have_unit_variance_and_are_restored() -> None:
    z = torch.randn(2, 6, 32, 32, generator=generator()) * torch.linspace(0.5, 3, 6)[:, None, None] + 2
    statistics = measure(z)
    standard = statistics.standardize(z)
    assert standard.mean((2, 3)).abs().max() < 1e-5
    assert torch.allclose(standard.var((2, 3)), torch.ones(2, 6), atol=0.02)
    assert torch.allclose(statistics.restore(standard), z, atol=1e-5)
    assert measure(torch.ones(1, 6, 8, 8)).standardize(torch.ones(1, 6, 8, 8)).abs().max() == 0


def test_standardized_batches_do_not_depend_on_contrast(pictures: np.ndarray) -> None:
    settings = replace(TINY, standardize=True)
    batch = denoiser_batches(Source(torch.from_numpy(pictures)), patch_encoder(), settings)[0]
    assert 0.5 < batch.reference.std() < 1.5


def test_flag_of_exported_weights(tmp_path: Path) -> None:
    assert not read_flag(tmp_path)
    for standardized in (True, False):
        write_flag(tmp_path, standardized)
        assert read_flag(tmp_path) is standardized
