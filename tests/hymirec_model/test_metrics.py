from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hymirec_model.errors import InputError
from hymirec_model.metrics import bootstrap, coverage, ndcg_at, paired_bootstrap, recall_at


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]], int]:
    n_items = draw(st.integers(5, 30))
    n_users = draw(st.integers(1, 6))
    length = draw(st.integers(1, 5))
    lists = [draw(st.permutations(range(n_items)))[:length] for _ in range(n_users)]
    ranked = np.array(lists, np.int64)
    ranked[:, draw(st.integers(1, length)) :] = -1
    relevant = [draw(st.lists(st.integers(0, n_items - 1), min_size=1, max_size=8)) for _ in range(n_users)]
    return ranked, relevant, draw(st.integers(1, length))


def ragged(relevant: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.cumsum([0, *map(len, relevant)]), np.concatenate([np.asarray(r, np.int64) for r in relevant])


@settings(max_examples=150, deadline=None)
@given(rankings())
def test_recall_and_ndcg_equal_their_definitions(case: tuple[np.ndarray, list[list[int]], int]) -> None:
    ranked, relevant, k = case
    recall, ndcg = recall_at(ranked, ragged(relevant), k), ndcg_at(ranked, ragged(relevant), k)
    for u, items in enumerate(relevant):
        wanted = set(items)
        found = [place for place, item in enumerate(ranked[u, :k]) if item in wanted]
        gain = sum(1 / math.log2(place + 2) for place in found)
        ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(wanted))))
        assert recall[u] == pytest.approx(len(found) / len(wanted))
        assert ndcg[u] == pytest.approx(gain / ideal)


def test_coverage_counts_shown_items_once() -> None:
    ranked = np.array([[0, 1, 7], [1, 2, -1]])
    assert coverage(ranked, 10, 2) == 0.3
    assert coverage(ranked, 10, 3) == 0.4
    with pytest.raises(InputError, match="holds item 7, but the catalogue has 5"):
        coverage(ranked, 5, 3)


def test_bad_input_is_named() -> None:
    ranked = np.array([[0, 1], [2, 3]])
    with pytest.raises(InputError, match=r"1 users have no relevant item .* row 1"):
        recall_at(ranked, (np.array([0, 1, 1]), np.array([0])), 2)
    with pytest.raises(InputError, match="list 1 repeats"):
        recall_at(np.array([[0, 1], [2, 2]]), (np.array([0, 1, 2]), np.array([0, 1])), 2)
    with pytest.raises(InputError, match="k: got 3, allowed 1 to 2"):
        ndcg_at(ranked, (np.array([0, 1, 2]), np.array([0, 1])), 3)
    with pytest.raises(InputError, match="expected 3 ascending offsets"):
        recall_at(ranked, (np.array([0, 2]), np.array([0, 1])), 2)
    with pytest.raises(InputError, match="finite"):
        bootstrap(np.array([1.0, np.nan]))
    with pytest.raises(InputError, match="same users"):
        paired_bootstrap(np.zeros(3), np.zeros(4))


def test_bootstrap_covers_the_truth_and_is_reproducible() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(60):
        interval = bootstrap(rng.normal(0.3, 1.0, 400), n_resamples=200, seed=trial)
        inside += interval.low <= 0.3 <= interval.high
    assert 50 <= inside <= 60
    values = rng.random(100)
    assert bootstrap(values, seed=4) == bootstrap(values, seed=4) != bootstrap(values, seed=5)


def test_pairing_sees_a_small_difference_that_separate_intervals_hide() -> None:
    rng = np.random.default_rng(1)
    baseline = rng.random(500)
    better = baseline + 0.01 + rng.normal(0, 0.01, 500)
    difference = paired_bootstrap(better, baseline)
    assert 0 < difference.low < 0.01 < difference.high < 0.02
    assert bootstrap(better).low < bootstrap(baseline).high
