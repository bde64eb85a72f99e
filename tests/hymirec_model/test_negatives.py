from __future__ import annotations

import numpy as np
import pytest
import torch

from hymirec_model.errors import InputError
from hymirec_model.negatives import NegativeSampler

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
