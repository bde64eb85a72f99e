from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hymirec_model import retrieval
from hymirec_model.errors import InputError
from hymirec_model.merging import Merge, merge_scores
from hymirec_model.retrieval import top_items, top_items_each
from tests.hymirec_model.small_catalogue import MERGES, people, unit


def test_one_interest_ranks_by_its_cosine_under_every_rule() -> None:
    interests, items = unit(5, 1, 8, seed=3), unit(100, 8, seed=4)
    lists = [top_items(interests, torch.ones(5, 1), items, 10, merge, 20.0)[0] for merge in MERGES]
    assert (lists[0] == lists[1]).all() and (lists[0] == lists[2]).all()


@pytest.mark.parametrize("merge", MERGES)
def test_top_items_is_the_full_sort(merge: Merge) -> None:
    interests, weights, items = people()
    scores = merge_scores(interests, weights, items, merge, 12.0)
    found, found_scores = top_items(interests, weights, items, 25, merge, 12.0)
    best = scores.sort(1, descending=True)
    assert (found == best.indices[:, :25]).all()
    assert torch.allclose(found_scores, best.values[:, :25], atol=1e-5)
    assert (top_items(interests, weights, items, 300, merge, 12.0)[0].sort(1).values == torch.arange(300)).all()


def test_ties_follow_the_seed_not_the_index() -> None:
    items = unit(1, 8, seed=0).expand(1000, 8)
    interests, weights = unit(3, 2, 8, seed=1), torch.ones(3, 2)
    first, _ = top_items(interests, weights, items, 20, "lse", 5.0, seed=1)
    again, _ = top_items(interests, weights, items, 20, "lse", 5.0, seed=1)
    other, _ = top_items(interests, weights, items, 20, "lse", 5.0, seed=2)
    assert (first == again).all() and not (first == other).all()
    assert 200 < first.float().mean() < 800, "ties lean to one end of the index"


def test_excluded_items_are_left_out() -> None:
    interests, weights, items = people()
    plain, _ = top_items(interests, weights, items, 10)
    exclude = (np.arange(0, 101, 5), plain[:, :5].flatten().numpy())
    rest, _ = top_items(interests, weights, items, 10, exclude=exclude)
    assert (rest[:, :5] == plain[:, 5:]).all()
    nearly_all = (np.array([0, *[298 * (u + 1) for u in range(20)]]), np.tile(np.arange(298), 20))
    rest, scores = top_items(interests, weights, items, 4, exclude=nearly_all)
    assert (rest[:, :2].sort(1).values == torch.tensor([298, 299])).all()
    assert (rest[:, 2:] == -1).all() and (scores[:, 2:] == -torch.inf).all()


@pytest.mark.parametrize("merge", MERGES)
def test_a_bonus_counts_on_top_of_the_merge(merge: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "CELLS", 2000)  # several users at once, not all
    interests, weights, items = people()
    own = np.random.default_rng(0).permuted(np.tile(np.arange(300), (20, 1)), axis=1)[:, :7]
    value = np.random.default_rng(1).uniform(-3, 3, own.shape).astype(np.float32)
    bonus = (np.arange(21) * 7, own.ravel(), value.ravel())
    scores = merge_scores(interests, weights, items, merge, 12.0)
    scores.scatter_add_(1, torch.from_numpy(own), torch.from_numpy(value))
    found, found_scores = top_items(interests, weights, items, 25, merge, 12.0, bonus=bonus)
    best = scores.sort(1, descending=True)
    assert (found == best.indices[:, :25]).all()
    assert torch.allclose(found_scores, best.values[:, :25], atol=1e-5)
    rest, _ = top_items(interests, weights, items, 293, merge, 12.0, bonus=bonus, exclude=bonus[:2])
    assert (rest == top_items(interests, weights, items, 293, merge, 12.0, exclude=bonus[:2])[0]).all()


@given(st.integers(0, 99), st.sampled_from(MERGES), st.integers(1, 40), st.sampled_from([0, 3, 40]))
def test_several_bonuses_at_once_find_what_each_finds_alone(seed: int, merge: Merge, n: int, most: int) -> None:
    """Many items share a vector, so that places among equals count too."""
    rng = np.random.default_rng(seed)
    interests, weights = unit(9, 3, 8, seed=seed), torch.ones(9, 3)
    items = unit(12, 8, seed=seed + 1)[torch.from_numpy(rng.integers(12, size=40))]
    rows = [rng.permutation(40)[: rng.integers(0, most + 1)] for _ in range(9)]
    offsets, own = np.cumsum([0, *map(len, rows)]), np.concatenate(rows)
    bonuses = [(offsets, own, value.astype(np.float32)) for value in rng.integers(-2, 3, (3, len(own)))]
    others, found = top_items_each(interests, weights, items, n, merge, 12.0, bonuses=bonuses, seed=seed)
    assert (others == top_items(interests, weights, items, n, merge, 12.0, exclude=(offsets, own), seed=seed)[0]).all()
    for each, bonus in zip(found, bonuses, strict=True):
        assert (each == top_items(interests, weights, items, n, merge, 12.0, bonus=bonus, seed=seed)[0]).all()


def test_no_users_give_empty_lists() -> None:
    interests, weights, items = people()
    assert top_items(interests[:0], weights[:0], items, 7)[0].shape == (0, 7)


def test_bad_input_is_named() -> None:
    interests, items = unit(2, 3, 8, seed=0), unit(10, 8, seed=1)
    weights = torch.ones(2, 3)
    with pytest.raises(InputError, match=r"1 users have weights .* row 1"):
        top_items(interests, torch.tensor([[1.0, 0, 0], [0, 0, 0]]), items, 3)
    with pytest.raises(InputError, match="n: got 11"):
        top_items(interests, weights, items, 11)
    with pytest.raises(
        InputError, match=r"exclude or bonus: got 2 offsets over 3 items, expected 3 ascending ones from 0 to 3"
    ):
        top_items(interests, weights, items, 3, exclude=(np.array([0, 3]), np.arange(3)))
    with pytest.raises(InputError, match="exclude or bonus: got items 0 to 10, allowed 0 to 9"):
        top_items(interests, weights, items, 3, exclude=(np.array([0, 2, 2]), np.array([0, 10])))
    for values in ([1.0], [1.0, np.inf], [1.0, np.nan]):
        bonus = (np.array([0, 2, 2]), np.array([0, 1]), np.array(values, np.float32))
        with pytest.raises(InputError, match=r"bonus: got \d values .* for 2 items, expected one for each item"):
            top_items(interests, weights, items, 3, bonus=bonus)
