"""Attention capture: it records what the network sees, changes nothing else, and is removed afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ad_service.core.backbone.model import Model, self_attention_layers
from ad_service.core.sampling.attention import (
    Layer,
    Reference,
    TokenLabels,
    Transfer,
    _Run,
    capture_attention,
    token_grid,
)
from tests.support.tiny_models import FAMILIES, backbone, noise, predict

CPU = torch.device("cpu")
LAYERS = {"pocket": 6, "sd15": 16, "sd2": 16, "sdxl": 70}
"""How many self-attention layers a model has; SD's tiny ones have as many as the real ones."""


def latents(model: Model, batch: int, height: int, width: int, seed: int = 0) -> Tensor:
    return noise(batch, model.unet.config.in_channels, height, width, seed=seed)


def processors(model: Model) -> list[object]:
    return [a.processor for a in self_attention_layers(model.unet)]


def plain(model: Model) -> Model:
    """The same network with diffusers' own similarity, which reads no swatch."""
    return replace(model, family=replace(model.family, similarity=None, in_context=False))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_predicts_the_same_inside_capture_as_outside(family: str) -> None:
    model = plain(backbone(family))
    z = latents(model, 2, 8, 16)
    with torch.no_grad():
        outside = predict(model, z, 300)
        with capture_attention(model) as capture:
            inside, _ = capture.predict_and_record(z, 300)
    torch.testing.assert_close(inside, outside, atol=1e-4, rtol=1e-4)


def test_processors_are_restored_after_each_capture() -> None:
    model = backbone("pocket")
    before = processors(model)
    for _ in range(2):
        with capture_attention(model):
            assert all(p is not q for p, q in zip(processors(model), before, strict=True))
        assert processors(model) == before


def test_processors_are_restored_after_an_exception() -> None:
    model = backbone("pocket")
    before = processors(model)
    with pytest.raises(RuntimeError, match="in the middle"), capture_attention(model):
        raise RuntimeError("in the middle")
    assert processors(model) == before


def test_calling_the_network_without_its_capture_is_an_error() -> None:
    model = backbone("pocket")
    with capture_attention(model), pytest.raises(AssertionError, match="without its capture"):
        predict(model, latents(model, 1, 8, 8), 10)


@pytest.mark.parametrize("family", FAMILIES)
def test_stopping_the_forward_pass_early_does_not_change_the_recorded_layers(family: str) -> None:
    model, z = backbone(family), latents(backbone(family), 2, 16, 24)
    after = []
    hook = model.unet.conv_out.register_forward_hook(lambda *_: after.append(1))
    with torch.no_grad(), capture_attention(model) as capture:
        reference = capture.reference(latents(model, 1, 16, 16), 0)
        stopped = capture.record(z, 100, reference)
        assert not after
        _, whole = capture.predict_and_record(z, 100, reference)
    hook.remove()
    assert list(stopped) == list(whole)
    for i, layer in whole.items():
        torch.testing.assert_close([layer.Q, layer.K, layer.V], [stopped[i].Q, stopped[i].K, stopped[i].V])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [(16, 24), (40, 8)])
def test_the_last_six_layers_are_recorded_with_their_grids(family: str, size: tuple[int, int]) -> None:
    model = backbone(family)
    with torch.no_grad(), capture_attention(model) as capture:
        _, layers = capture.predict_and_record(latents(model, 2, *size), 100)
    assert capture.count == LAYERS[family]
    assert list(layers) == list(range(capture.count - 6, capture.count))
    for layer in layers.values():
        h, w = layer.grid
        assert layer.Q.shape == layer.K.shape == layer.V.shape
        assert (layer.Q.shape[0], layer.Q.shape[2]) == (2, h * w)
        assert h / w == size[0] / size[1]


@pytest.mark.parametrize(
    ("size", "count", "grid"),
    [
        ((64, 64), 4096, (64, 64)),
        ((64, 64), 64, (8, 8)),
        ((24, 40), 240, (12, 20)),
        ((13, 9), 117, (13, 9)),
        ((13, 9), 35, (7, 5)),
        ((13, 9), 12, (4, 3)),
        ((1, 40), 10, (1, 10)),
    ],
)
def test_a_token_grid_is_a_halving_that_rounds_up(size: tuple[int, int], count: int, grid: tuple[int, int]) -> None:
    assert token_grid(size, count) == grid


def test_a_token_count_that_is_not_a_halving_is_an_error() -> None:
    with pytest.raises(ValueError, match="50 tokens are not a halving of 16x16"):
        token_grid((16, 16), 50)


@pytest.mark.parametrize("family", ["pocket", "sd15"])
def test_keys_and_values_of_crops_are_concatenated(family: str) -> None:
    model = backbone(family)
    crops = latents(model, 3, 8, 16)
    with capture_attention(model) as capture:
        together = capture.reference(crops, 50)
        alone = [capture.reference(crops[i : i + 1], 50) for i in range(3)]
    assert set(together.layers) == set(alone[0].layers)
    for i, layer in together.layers.items():
        assert layer.K.shape[0] == 1
        assert layer.grid == alone[0].layers[i].grid
        torch.testing.assert_close(layer.K, torch.cat([a.layers[i].K for a in alone], 2), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(layer.V, torch.cat([a.layers[i].V for a in alone], 2), atol=1e-4, rtol=1e-4)


def test_a_family_that_reads_in_context_keeps_the_keys_of_all_layers() -> None:
    for family, expected in (("pocket", 0), ("sd15", 6)):
        model = backbone(family)
        with capture_attention(model) as capture:
            reference = capture.reference(latents(model, 1, 8, 8), 0)
        assert len(reference.layers) == (expected or capture.count)


@pytest.mark.parametrize("family", ["pocket", "sd15"])
def test_the_swatch_changes_the_prediction_of_a_family_that_reads_in_context(family: str) -> None:
    model = backbone(family)
    z = latents(model, 1, 8, 8)
    with torch.no_grad(), capture_attention(model) as capture:
        alone, _ = capture.predict_and_record(z, 50)
        readings = [
            capture.predict_and_record(z, 50, capture.reference(latents(model, 1, 8, 16, seed), 0))[0]
            for seed in (1, 2)
        ]
    changed = [float((r - alone).abs().max()) > 1e-3 for r in (*readings, readings[0] + alone - readings[1])]
    assert changed == [model.family.in_context] * 3


def test_the_order_of_a_swatchs_crops_does_not_matter() -> None:
    model = backbone("pocket")
    z, crops = latents(model, 1, 8, 8), latents(model, 2, 8, 8, seed=1)
    with torch.no_grad(), capture_attention(model) as capture:
        one, _ = capture.predict_and_record(z, 50, capture.reference(crops, 0))
        other, _ = capture.predict_and_record(z, 50, capture.reference(crops.flip(0), 0))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def halves(count: int = 1) -> Tensor:
    """Label 0 above, 1 below: (count, 8, 8)."""
    return (torch.arange(8)[:, None] >= 4).long().expand(count, 8, 8)


def test_labels_restrict_what_the_target_reads() -> None:
    model = backbone("sd15")
    z, zs = latents(model, 1, 8, 8), latents(model, 1, 8, 8, seed=1)
    with torch.no_grad(), capture_attention(model) as capture:
        reference = capture.reference(zs, 50, TokenLabels(halves(), 2, CPU))
        _, layers = capture.predict_and_record(z, 50)
        i = capture.count - 1
        assert layers[i].grid == (8, 8)
        keys = reference.layers[i]
        below = torch.zeros(64, dtype=torch.bool)
        below[32:] = True
        spoilt = replace(reference, layers={i: replace(keys, V=torch.where(below[:, None], keys.V + 9, keys.V))})
        layout = TokenLabels(halves(), 2, CPU)
        before, after = (capture.target(i, layers[i], r, layout) for r in (reference, spoilt))
        changed = (before != after).any(3).any(1)[0]
        assert torch.equal(changed, below)
        free = capture.target(i, layers[i], spoilt, None)
    assert bool((free != before).any(3).all())


def test_a_layout_with_one_label_reads_only_that_part_of_the_swatch() -> None:
    model = backbone("pocket")
    z, zs = latents(model, 1, 16, 16), latents(model, 1, 32, 16, seed=1)
    zs[:, :, 16:] *= 3
    regions = (torch.arange(32)[:, None] >= 16).long().expand(1, 32, 16)
    with torch.no_grad(), capture_attention(model) as capture:
        reference = capture.reference(zs, 0, TokenLabels(regions, 2, CPU))
        layouts = [TokenLabels(torch.full((1, 16, 16), i), 2, CPU) for i in range(2)]
        top, bottom = (capture.predict_and_record(z, 50, reference, layout)[0] for layout in layouts)
        free, _ = capture.predict_and_record(z, 50, reference)
    for one, other in ((top, bottom), (top, free), (bottom, free)):
        assert float((one - other).abs().max()) > 1e-3


def test_a_layout_has_no_effect_without_regions() -> None:
    model = backbone("pocket")
    z, zs = latents(model, 1, 8, 8), latents(model, 1, 8, 8, seed=1)
    with torch.no_grad(), capture_attention(model) as capture:
        reference = capture.reference(zs, 0)
        with_layout, _ = capture.predict_and_record(z, 50, reference, TokenLabels(halves(), 2, CPU))
        without, _ = capture.predict_and_record(z, 50, reference)
    assert torch.equal(with_layout, without)


def test_a_transfer_uses_the_contents_queries_and_the_swatchs_keys_and_values() -> None:
    """By hand: two queries of two numbers read three keys."""
    Q, Qc = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]]]]), torch.tensor([[[[0.0, 1.0], [4.0, 0.0]]]])
    K, Ks = noise(1, 1, 2, 2), torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]]])
    V, Vs = noise(1, 1, 2, 3, seed=1), torch.eye(3)[None, None]
    content, swatch = Layer(Qc, K, V, (1, 2)), Layer(noise(1, 1, 3, 2), Ks, Vs, (1, 3))
    with capture_attention(plain(backbone("pocket"))) as capture:
        transfer = Transfer({5: content}, Reference({4: swatch, 5: swatch}), 0.75, 1.5)
        capture._run = _Run((1, 2), frozenset(), transfer=transfer)
        asked, own = (capture.attend(i, Q, K, V) for i in (5, 4))
    blended = torch.tensor([[0.25, 0.75], [3.0, 0.5]])  # 0.75 Qc + 0.25 Q
    scores = torch.tensor([[0.25, 0.75, 1.0], [3.0, 0.5, 3.5]]) * 1.5 / 2**0.5
    torch.testing.assert_close(blended @ Ks[0, 0].T * 1.5 / 2**0.5, scores)
    torch.testing.assert_close(asked[0, 0], scores.softmax(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(own[0, 0], (Q[0, 0] @ K[0, 0].T / 2**0.5).softmax(1) @ V[0, 0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["pocket", "sd15"])
def test_a_transfer_from_a_picture_to_itself_changes_nothing(family: str) -> None:
    model = replace(backbone(family), family=replace(backbone(family).family, in_context=False))
    z = latents(model, 1, 8, 8)
    with torch.no_grad(), capture_attention(model) as capture:
        plainly, layers = capture.predict_and_record(z, 300)
        transferred = capture.predict_transferred(z, 300, Transfer(layers, capture.reference(z, 300), 1.0, 1.0))
        sharper = capture.predict_transferred(z, 300, Transfer(layers, capture.reference(z, 300), 1.0, 2.0))
    torch.testing.assert_close(transferred, plainly, atol=1e-4, rtol=1e-4)
    assert float((sharper - plainly).abs().max()) > 1e-4


def test_the_capture_counts_windows() -> None:
    model = backbone("pocket")
    with torch.no_grad(), capture_attention(model) as capture:
        capture.predict_and_record(latents(model, 3, 8, 8), 1)
        capture.reference(latents(model, 2, 8, 8), 1)
    assert (capture.forwards, capture.backwards) == (5, 0)


def test_gradients_reach_the_canvas_and_no_parameter() -> None:
    model = backbone("pocket")
    z = latents(model, 1, 8, 8).requires_grad_()
    with capture_attention(model) as capture:
        _, layers = capture.predict_and_record(z, 50, capture.reference(latents(model, 1, 8, 8, seed=1), 0))
        sum(layer.K.square().sum() for layer in layers.values()).backward()  # type: ignore[union-attr]
    assert z.grad is not None and float(z.grad.abs().max()) > 0
    assert all(p.grad is None for p in model.unet.parameters())
