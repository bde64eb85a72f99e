from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from hymirec_model.errors import InputError
from hymirec_model.merging import Merge, calibration_weights, merge_scores
from tests.hymirec_model.small_catalogue import MERGES, people, unit


@pytest.mark.parametrize("merge", MERGES)
def test_merge_equals_its_formula(merge: Merge) -> None:
    interests, weights, items = people()
    cosine = torch.einsum("ukd,nd->ukn", interests, items).double()
    exists = (weights > 0).double()[..., None]
    expected = {
        "max": (cosine.masked_fill(exists == 0, -9)).amax(1),
        "lse": (exists * (12 * cosine).exp()).sum(1).log(),
        "calibrated": (weights[..., None] * (12 * cosine).exp()).sum(1).log(),
    }[merge]
    scores = merge_scores(interests, weights, items, merge, 12.0)
    assert torch.allclose(scores.double(), expected, atol=1e-4)


def test_large_scale_stays_finite_and_lse_approaches_max() -> None:
    interests, weights, items = people()
    lse = merge_scores(interests, weights, items, "lse", 1e4)
    assert torch.isfinite(lse).all()
    assert torch.allclose(lse / 1e4, merge_scores(interests, weights, items, "max"), atol=1e-3)


def test_calibration_brings_a_greedy_interest_down() -> None:
    """An interest near the catalogue's common direction likes everything; its weight must fall."""
    items = normalize(unit(500, 16, seed=5) + 2 * unit(1, 16, seed=6), dim=-1)
    interests = torch.stack([normalize(items.mean(0), dim=0), unit(1, 16, seed=7)[0]])[None]
    weights = calibration_weights(interests, items[:200], 10.0)
    assert weights[0, 0] < weights[0, 1]
    assert weights.sum().item() == pytest.approx(1.0)


def test_bad_input_is_named() -> None:
    interests, items = unit(2, 3, 8, seed=0), unit(10, 8, seed=1)
    weights = torch.ones(2, 3)
    with pytest.raises(InputError, match="merge: got 'mean', allowed max, lse, calibrated"):
        merge_scores(interests, weights, items, "mean")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="scale: got 0"):
        merge_scores(interests, weights, items, "lse", 0.0)
    with pytest.raises(InputError, match="item_vectors: got shape"):
        merge_scores(interests, weights, items[:, :4])
