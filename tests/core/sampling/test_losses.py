"""Losses: attention and its version by label are softmax as in the books, and nothing pulls at the target."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ad_service.core.sampling.losses import Places, ad_loss, attend, attend_by_label, content_loss
from tests.support.tiny_models import noise

SIMILARITIES = pytest.mark.parametrize("similarity", [None, 12.0])


def by_hand(Q: Tensor, K: Tensor, V: Tensor, similarity: float | None, allowed: Tensor | None = None) -> Tensor:
    """Attention written out in float64; `allowed` (B, L, M) says which keys a query sees."""
    Q, K, V = Q.double(), K.double(), V.double()
    scores = Q @ K.transpose(2, 3)
    if similarity is None:
        scores = scores / Q.shape[3] ** 0.5
    else:
        lengths = Q.norm(dim=3)[..., None] * K.norm(dim=3)[..., None, :]
        scores = similarity * scores / lengths
    if allowed is not None:
        scores = scores.masked_fill(~allowed[:, None], -torch.inf)
    return (scores.softmax(3) @ V).float()


def queries_keys_values(references: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Two windows of 30 queries and 41 keys in 3 heads of 8 numbers."""
    return noise(2, 3, 30, 8), noise(references, 3, 41, 8, seed=1), noise(references, 3, 41, 8, seed=2)


def three_labels() -> tuple[Tensor, Tensor]:
    """The labels of 2 x 30 queries, and the keys of each label; label 1 has a single one, which is label 2's too."""
    wanted = torch.arange(60).view(2, 30) % 3
    wanted[1] = wanted[1].flip(0).clamp_max(1)  # the second window has no query of label 2
    member = torch.zeros(3, 41, dtype=torch.bool)
    member[0, :20], member[1, 25], member[2, 20:] = True, True, True
    return wanted, member


def places(wanted: Tensor, member: Tensor) -> tuple[list[Places], Places]:
    """Where the queries and the keys of each label stand."""
    queries = [{int(label): (row == label).nonzero()[:, 0] for label in row.unique()} for row in wanted]
    return queries, {label: row.nonzero()[:, 0] for label, row in enumerate(member)}


@SIMILARITIES
@pytest.mark.parametrize("references", [1, 2])
def test_attention_is_softmax_of_the_scores_times_the_values(similarity: float | None, references: int) -> None:
    Q, K, V = queries_keys_values(references)
    torch.testing.assert_close(attend(Q, K, V, similarity), by_hand(Q, K, V, similarity))


@SIMILARITIES
def test_sharpness_multiplies_the_scores(similarity: float | None) -> None:
    Q, K, V = queries_keys_values()
    expected = by_hand(1.5 * Q, K, V, None) if similarity is None else by_hand(Q, K, V, 1.5 * similarity)
    torch.testing.assert_close(attend(Q, K, V, similarity, 1.5), expected)


def test_cosine_attention_ignores_the_length_of_queries_and_keys() -> None:
    Q, K, V = queries_keys_values()
    torch.testing.assert_close(attend(7 * Q, K / 3, V, 12.0), attend(Q, K, V, 12.0))


@SIMILARITIES
@pytest.mark.parametrize("references", [1, 2])
def test_attention_by_label_is_a_masked_softmax(similarity: float | None, references: int) -> None:
    Q, K, V = queries_keys_values(references)
    wanted, member = three_labels()
    expected = by_hand(Q, K, V, similarity, member[wanted])
    torch.testing.assert_close(attend_by_label(Q, K, V, *places(wanted, member), similarity), expected)


def test_keys_of_other_labels_do_not_matter_to_a_query() -> None:
    Q, K, V = queries_keys_values()
    wanted, member = three_labels()
    changed = torch.where(member[0][:, None], V, V + 100)
    before, after = (attend_by_label(Q, K, values, *places(wanted, member)) for values in (V, changed))
    same = (before - after).abs().amax((1, 3)) == 0
    assert torch.equal(same, wanted == 0)


def test_attention_by_label_does_not_depend_on_the_order_of_tokens() -> None:
    Q, K, V = queries_keys_values()
    wanted, member = three_labels()
    l, m = torch.randperm(30, generator=torch.Generator().manual_seed(3)), torch.arange(41).flip(0)  # noqa: E741
    shuffled = attend_by_label(Q[:, :, l], K[:, :, m], V[:, :, m], *places(wanted[:, l], member[:, m]))
    torch.testing.assert_close(shuffled, attend_by_label(Q, K, V, *places(wanted, member))[:, :, l])


def test_gradients_of_attention_by_label_reach_queries_keys_and_values() -> None:
    Q, K, V = (x.requires_grad_() for x in queries_keys_values())
    wanted, member = three_labels()
    ours = torch.autograd.grad(attend_by_label(Q, K, V, *places(wanted, member)).square().sum(), (Q, K, V))
    hand = torch.autograd.grad(by_hand(Q, K, V, None, member[wanted]).square().sum(), (Q, K, V))
    for mine, expected in zip(ours, hand, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-4)


def test_the_loss_is_zero_where_the_canvas_is_the_swatch() -> None:
    Q, K, V = queries_keys_values()
    assert ad_loss(attend(Q, K, V), attend(Q, K.clone(), V.clone())).tolist() == [0, 0]
    assert (ad_loss(attend(Q, K, V), attend(Q, K, V + 0.1)) > 0.05).all()


@pytest.mark.parametrize("loss", [ad_loss, content_loss])
def test_a_loss_is_the_mean_difference_within_each_window(loss: type(ad_loss)) -> None:
    one, other = noise(2, 3, 30, 8), noise(2, 3, 30, 8, seed=1)
    expected = [float((one[b] - other[b]).abs().mean()) for b in range(2)]
    assert loss(one, other).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("loss", [ad_loss, content_loss])
def test_gradients_of_a_loss_reach_the_canvas_and_not_the_target(loss: type(ad_loss)) -> None:
    own, target = noise(2, 3, 30, 8).requires_grad_(), noise(2, 3, 30, 8, seed=1).requires_grad_()
    loss(own, target).sum().backward()
    assert target.grad is None
    assert own.grad is not None
    torch.testing.assert_close(own.grad, (own - target).sign() / (3 * 30 * 8))


def test_losses_of_half_precision_are_summed_in_float32() -> None:
    own = torch.full((1, 1, 300, 300), 1.0, dtype=torch.float16)
    assert ad_loss(own, 0 * own).tolist() == [1.0]
    assert content_loss(own, 0 * own).dtype == torch.float32
