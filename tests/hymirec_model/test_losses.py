from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hymirec_model import losses
from hymirec_model.losses import (
    balance_loss,
    dmil_loss,
    info_nce,
    masked_negatives,
    mean_pairwise_cosine,
    mixture_loss,
    usage,
)
from hymirec_model.matching import cluster_targets

B, K, W, N, D = 6, 4, 5, 20, 8
SCALE = torch.tensor(9.0)


def unit(*shape: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed)), dim=-1)


NO_BIAS = torch.zeros(())


def parts(k: int = K, w: int = W) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Interests, targets, their mask, negatives, and no false ones."""
    mask = torch.ones(B, w, dtype=torch.bool)
    return unit(B, k, seed=1), unit(B, w, seed=2), mask, unit(N, seed=3), torch.zeros(B, w, N, dtype=torch.bool)


def test_one_interest_and_one_target_are_plain_cross_entropy() -> None:
    interests, targets, mask, negatives, false = parts(1, 1)
    logits = SCALE * torch.cat([(interests * targets).sum(-1), interests[:, 0] @ negatives.T], 1)
    plain = F.cross_entropy(logits, torch.zeros(B, dtype=torch.long))
    for loss in (
        mixture_loss(interests, targets, mask, negatives, false, SCALE, NO_BIAS),
        dmil_loss(interests, targets, mask, negatives, false, SCALE, NO_BIAS, seed=0),
    ):
        torch.testing.assert_close(loss, plain, rtol=1e-6, atol=1e-6)


def test_one_interest_and_one_target_train_as_next_item_to_the_bit() -> None:
    _, targets, mask, negatives, false = parts(1, 1)
    leaves = [unit(B, 1, seed=1).requires_grad_() for _ in range(4)]
    others = (targets, mask, negatives, false, SCALE, NO_BIAS)
    products = SCALE * (targets @ leaves[1].mT)[..., 0], SCALE * (leaves[3] * targets).sum(-1)
    pairs = [
        (mixture_loss(leaves[0], *others), info_nce(products[0], SCALE * (leaves[1] @ negatives.T), false, mask)),
        (dmil_loss(leaves[2], *others, 0), info_nce(products[1], SCALE * (leaves[3] @ negatives.T), false, mask)),
    ]
    for number, (found, plain) in enumerate(pairs):
        assert torch.equal(found, plain)
        (found + plain).backward()
        mine, expected = leaves[2 * number].grad, leaves[2 * number + 1].grad
        assert mine is not None and expected is not None and torch.equal(mine, expected)


def test_clusters_of_targets_do_not_know_the_interests(monkeypatch: pytest.MonkeyPatch) -> None:
    interests, *others = parts()
    seen = []

    def clusters(*args: object) -> tuple[Tensor, Tensor, Tensor]:
        seen.append(cluster_targets(*args))
        return seen[-1]

    monkeypatch.setattr(losses, "cluster_targets", clusters)
    for changed in (interests, interests.flip(1), unit(B, K, seed=77)):
        dmil_loss(changed, *others, SCALE, NO_BIAS, seed=5)
    for other in seen[1:]:
        assert all(torch.equal(mine, first) for mine, first in zip(other, seen[0], strict=True))


def test_bias_is_added_to_the_scores_of_the_negatives() -> None:
    interests, targets, mask, negatives, false = parts(1)
    bias = torch.linspace(-2, 2, N)
    expected = info_nce(
        SCALE * (targets @ interests[:, 0, :, None])[..., 0],
        SCALE * (interests @ negatives.T) + bias,
        false,
        mask,
    )
    for found in (
        mixture_loss(interests, targets, mask, negatives, false, SCALE, bias),
        dmil_loss(interests, targets, mask, negatives, false, SCALE, bias, seed=0),
    ):
        torch.testing.assert_close(found, expected)


def test_mixture_is_the_score_of_retrieval() -> None:
    interests, targets, mask, negatives, false = parts()
    rows = []
    for user in range(B):
        for target in targets[user]:
            items = torch.cat([target[None], negatives])
            score = torch.logsumexp(SCALE * (interests[user] @ items.T), 0)
            rows.append(F.cross_entropy(score[None], torch.zeros(1, dtype=torch.long)))
    expected = torch.stack(rows).mean()
    torch.testing.assert_close(mixture_loss(interests, targets, mask, negatives, false, SCALE, NO_BIAS), expected)


def test_negatives_that_are_the_target_or_its_twin_are_marked() -> None:
    targets, negatives = unit(1, 2, seed=1), unit(4, seed=2)
    negatives[2] = F.normalize(targets[0, 1] + 0.01 * negatives[2], dim=-1)
    marked = masked_negatives(targets, torch.tensor([[7, 8]]), negatives, torch.tensor([1, 7, 3, 8]), 0.98)
    assert marked[0].tolist() == [[False, True, False, False], [False, False, True, True]]


@pytest.mark.parametrize("loss", [mixture_loss, dmil_loss])
def test_false_negatives_change_nothing(loss: object) -> None:
    interests, targets, mask, negatives, false = parts()
    more = torch.cat([negatives, targets[2]])
    ids = torch.arange(B * W).view(B, W)
    marked = masked_negatives(targets, ids, more, torch.cat([torch.full((N,), -1), ids[2]]), 0.99999)
    extra = (0,) if loss is dmil_loss else ()
    seen = loss(interests[2:3], targets[2:3, :1], mask[2:3, :1], negatives, false[2:3, :1], SCALE, NO_BIAS, *extra)
    alone = loss(
        interests[2:3], targets[2:3, :1], mask[2:3, :1], more[: N + 1], marked[2:3, :1, : N + 1], SCALE, NO_BIAS, *extra
    )
    assert marked[2, 0, N] and not marked[2, 0, :N].any()
    torch.testing.assert_close(alone, seen)


def test_all_negatives_false_gives_no_loss_and_finite_gradients() -> None:
    interests, targets, mask, negatives, false = parts()
    false[1] = True
    interests.requires_grad_()
    mixture_loss(interests, targets, mask, negatives, false, SCALE, NO_BIAS).backward()
    assert interests.grad is not None and torch.isfinite(interests.grad).all()


@pytest.mark.parametrize("padding", [1, 4])
def test_padding_of_targets_changes_nothing(padding: int) -> None:
    interests, targets, mask, negatives, false = parts()
    mask[0, 3:] = False
    longer = torch.cat([targets, unit(B, padding, seed=9)], 1)
    longer_mask = torch.cat([mask, torch.zeros(B, padding, dtype=torch.bool)], 1)
    longer_false = torch.cat([false, torch.zeros(B, padding, N, dtype=torch.bool)], 1)
    short, long = (
        (targets, mask, negatives, false, SCALE, NO_BIAS),
        (longer, longer_mask, negatives, longer_false, SCALE, NO_BIAS),
    )
    torch.testing.assert_close(mixture_loss(interests, *long), mixture_loss(interests, *short))
    torch.testing.assert_close(dmil_loss(interests, *long, seed=3), dmil_loss(interests, *short, seed=3))
    torch.testing.assert_close(usage(interests, longer, longer_mask, SCALE), usage(interests, targets, mask, SCALE))


def test_dmil_does_not_depend_on_the_order_of_the_interests() -> None:
    interests, *others = parts()
    expected = dmil_loss(interests, *others, SCALE, NO_BIAS, seed=5)
    for seed in range(6):
        order = torch.randperm(K, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(dmil_loss(interests[:, order], *others, SCALE, NO_BIAS, seed=5), expected)


def test_dmil_trains_only_the_matched_interests() -> None:
    """Two kinds of targets have two clusters: two of the four interests answer, the others feel nothing."""
    interests, targets, mask, negatives, false = parts()
    kinds = torch.tensor([0, 1, 0, 1, 1])
    targets = targets[:, kinds].requires_grad_()
    interests.requires_grad_()
    dmil_loss(interests, targets, mask, negatives, false, SCALE, NO_BIAS, seed=0).backward()
    assert interests.grad is not None
    assert (interests.grad.abs().sum(-1) > 0).sum(1).tolist() == [2] * B
    cosine = interests.detach() @ targets.detach()[:, :2].transpose(1, 2)
    for user in range(B):
        pairs = [(float(cosine[user, a, 0] + cosine[user, b, 1]), {a, b}) for a in range(K) for b in range(K) if a != b]
        moved = set(interests.grad[user].abs().sum(-1).nonzero()[:, 0].tolist())
        assert moved == max(pairs, key=lambda pair: pair[0])[1]


@pytest.mark.parametrize("negatives_of", ["own", "all"])
def test_dmil_equals_a_loop_over_targets(negatives_of: str) -> None:
    """Two kinds of targets far apart and three interests, of which two lie near the kinds."""
    _, _, mask, negatives, false = parts(3, 4)
    corners = torch.eye(D)
    kinds = F.normalize(corners[[0, 1]] + 0.1 * unit(B, 2, seed=2), dim=-1)
    targets = kinds[:, [0, 1, 0, 1]]
    interests = F.normalize(corners[[5, 1, 0]] + 0.2 * unit(B, 3, seed=1), dim=-1).requires_grad_()
    false[1, 2, 3:9] = True
    mask[0, 1] = False
    bias, rows = torch.linspace(-1, 1, N), []
    for user in range(B):
        for place in mask[user].nonzero()[:, 0].tolist():
            answers = (2, 1, 2, 1)[place]
            scores = SCALE * (interests[user] @ negatives[~false[user, place]].T) + bias[~false[user, place]]
            rivals = scores[answers] if negatives_of == "own" else scores.flatten()
            own = SCALE * (interests[user, answers] @ targets[user, place])
            rows.append(F.cross_entropy(torch.cat([own[None], rivals])[None], torch.zeros(1, dtype=torch.long)))
    found = dmil_loss(interests, targets, mask, negatives, false, SCALE, bias, seed=0, negatives_of=negatives_of)
    torch.testing.assert_close(found, torch.stack(rows).mean())
    # Which interest answers is decided without gradient: that of the loop, where it is given, is all there is.
    mine, plain = (torch.autograd.grad(loss, interests)[0] for loss in (found, torch.stack(rows).mean()))
    torch.testing.assert_close(mine, plain)


def test_negatives_of_all_interests_reach_those_that_answer_for_nothing() -> None:
    interests, targets, mask, negatives, false = parts()
    targets = targets[:, :1].expand(-1, W, -1)  # one kind: one interest answers
    moved = {}
    for negatives_of in ("own", "all"):
        leaf = interests.clone().requires_grad_()
        dmil_loss(leaf, targets, mask, negatives, false, SCALE, NO_BIAS, 0, negatives_of=negatives_of).backward()
        assert leaf.grad is not None
        moved[negatives_of] = (leaf.grad.abs().sum(-1) > 0).sum(1).tolist()
    assert moved == {"own": [1] * B, "all": [K] * B}


def test_loss_falls_as_interests_approach_their_targets() -> None:
    interests, targets, mask, negatives, false = parts(W, W)
    for loss, extra in ((mixture_loss, {}), (dmil_loss, {"seed": 0})):
        values = [
            float(
                loss(
                    F.normalize((1 - x) * interests + x * targets, dim=-1),
                    targets,
                    mask,
                    negatives,
                    false,
                    SCALE,
                    NO_BIAS,
                    **extra,
                )
            )
            for x in (0.0, 0.5, 1.0)
        ]
        assert values[0] > values[1] > values[2] > 0


def test_usage_and_balance() -> None:
    interests, targets, mask, _, _ = parts()
    share = usage(interests, targets, mask, SCALE)
    assert share.shape == (K,) and float(share.sum()) == pytest.approx(1, abs=1e-6)
    same = usage(interests[:, :1].expand(-1, K, -1), targets, mask, SCALE)
    assert float(balance_loss(same)) == pytest.approx(0, abs=1e-6)
    assert float(balance_loss(share)) > 0
    assert float(balance_loss(torch.tensor([1.0, 0, 0, 0]))) == pytest.approx(math.log(4))


def test_pairwise_cosine() -> None:
    assert float(mean_pairwise_cosine(unit(B, 1, seed=0))) == 0
    assert float(mean_pairwise_cosine(unit(B, 1, seed=0).expand(-1, 3, -1))) == pytest.approx(1, abs=1e-6)
    assert float(mean_pairwise_cosine(torch.eye(3)[None])) == pytest.approx(0, abs=1e-6)


def test_negative_scores_may_differ_by_target_or_be_shared() -> None:
    positive = torch.randn(B, W, generator=torch.Generator().manual_seed(0))
    shared = torch.randn(B, 1, N, generator=torch.Generator().manual_seed(1))
    mask, false = torch.ones(B, W, dtype=torch.bool), torch.zeros(B, W, N, dtype=torch.bool)
    assert torch.equal(
        info_nce(positive, shared, false, mask), info_nce(positive, shared.expand(-1, W, -1), false, mask)
    )
