from __future__ import annotations

import numpy as np
import pytest
import torch

from hymirec_model.errors import InputError
from hymirec_model.histories import Batch
from hymirec_model.negatives import Negatives, NegativeSampler
from hymirec_model.user_side import UserSide
from hymirec_model.window_sampler import WindowSampler
from tests.hymirec_model import planted

COUNTS = np.array([0, 900, 1, 0, 50, 7, 7, 300, 2, 1])
KNOWN = np.flatnonzero(COUNTS)


def test_only_items_with_events_are_drawn_and_popular_ones_more_often() -> None:
    drawn = NegativeSampler(COUNTS, seed=0).draw(20_000).ids.numpy()
    share = np.bincount(drawn, minlength=len(COUNTS)) / len(drawn)
    expected = np.where(COUNTS > 0, 0.5 / len(KNOWN) + 0.5 * COUNTS / COUNTS.sum(), 0)
    np.testing.assert_allclose(share, expected, atol=0.01)


def test_sums_are_those_of_all_items_with_less_noise_than_by_uniform_draws() -> None:
    """Scores grow with the counts, as those of a trained model do."""
    score = torch.from_numpy(np.log1p(COUNTS)).float()
    truth = float(score[KNOWN].exp().sum())
    sampler, random = NegativeSampler(COUNTS, seed=0), np.random.default_rng(0)
    biased, uniform = [], []
    for _ in range(400):
        drawn = sampler.draw(32)
        biased.append(float((score[drawn.ids] + drawn.bias).exp().sum()))
        uniform.append(float(score[random.choice(KNOWN, 32)].exp().mean()) * len(KNOWN))
    assert np.mean(biased) == pytest.approx(truth, rel=0.05)
    assert np.std(biased) < 0.6 * np.std(uniform)


def test_equal_seeds_draw_the_same() -> None:
    first, second, other = (NegativeSampler(COUNTS, seed).draw(50).ids for seed in (3, 3, 4))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_no_events_at_all_are_refused() -> None:
    with pytest.raises(InputError, match="seen no item with an event; allowed: 1 or more"):
        NegativeSampler(np.zeros(4, np.int64), seed=0)


def test_targets_of_other_users_keep_the_sum_and_take_noise_from_it() -> None:
    """Each row's sum, over sampled negatives and the other rows' targets, estimates that over all items."""
    items, rows = 24, 6
    log = planted.log(20, items)
    counts = np.bincount(log.items, minlength=items)
    counts[0] = 900  # what is drawn by counts differs from what comes as a target
    settings = {"batch_users": rows, "history": 5, "window": 4, "seed": 0, "recent": 0.5}
    stream = WindowSampler(log, **settings)
    expected = stream.expected_targets(items)
    seen = [next(batch) for batch in [iter(WindowSampler(log, **settings))] for _ in range(500)]
    found = np.bincount(np.concatenate([b.targets_BW[b.target_mask_BW].numpy() for b in seen]), minlength=items)
    np.testing.assert_allclose(found / (500 * rows), expected, atol=0.03)

    sampler, score = NegativeSampler(counts, seed=0), torch.from_numpy(np.log1p(counts) + np.arange(items) % 3).float()
    truth, alone, beside = float(score.exp().sum()), [], []
    for batch in seen:
        drawn, both = sampler.draw(16), sampler.draw_beside(batch, (rows - 1) * expected, 16)
        alone.append(float((score[drawn.ids] + drawn.bias).exp().sum()))
        assert both.owner is not None
        theirs = both.owner != 0  # what the first row meets
        beside.append(float((score[both.ids] + both.bias)[theirs].exp().sum()))
    assert np.mean(alone) == pytest.approx(truth, rel=0.03) and np.mean(beside) == pytest.approx(truth, rel=0.03)
    assert np.std(beside) < 0.9 * np.std(alone)


def test_a_user_never_meets_own_targets_as_negatives() -> None:
    log = planted.log(12, 24)
    batch = next(iter(WindowSampler(log, batch_users=3, history=5, window=4, seed=1)))
    torch.manual_seed(0)
    side, vectors = UserSide(8, width=8), torch.nn.functional.normalize(torch.randn(24, 8), dim=-1)
    both = NegativeSampler(np.bincount(log.items, minlength=24), seed=0).draw_beside(batch, np.full(24, 0.5), 7)
    assert both.owner is not None

    def loss(batch: Batch, negatives: Negatives) -> float:
        places = torch.cat([batch.items_BN.flatten(), batch.targets_BW.flatten(), negatives.ids])
        return side.loss(batch, vectors, places, negatives).item()

    rows, masks = [], batch.target_mask_BW.sum(1)
    for row in range(3):
        kept = both.owner != row
        one = Batch(*(getattr(batch, name)[row : row + 1] for name in Batch.__dataclass_fields__))
        rows.append(loss(one, Negatives(both.ids[kept], both.bias[kept])))
    seen = loss(batch, both)
    assert seen == pytest.approx(float(np.average(rows, weights=masks)), rel=1e-5)
    assert loss(batch, Negatives(both.ids, both.bias)) != pytest.approx(seen, rel=1e-6)
