"""The figures of a comparison, on values whose answer is known."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from jobs.platform.comparison import People, Sizes, figures, matched_cosine, overlap, quantiles, sample


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.normal(size=shape)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        ("abcd", "dcba", 1.0),
        ("abcd", "abxy", 0.5),
        ("abcd", "wxyz", 0.0),
        ("abcd", "ab", 0.5),
        ("", "abcd", 0.0),
        ("", "", 1.0),
    ],
)
def test_overlap_is_the_share_of_the_longer_list(first: str, second: str, share: float) -> None:
    assert overlap(first, second) == overlap(second, first) == share


@pytest.mark.parametrize(("k", "other"), [(1, 1), (3, 3), (6, 6), (3, 5), (5, 2)])
def test_interests_are_matched_as_trying_all_pairings_does(k: int, other: int) -> None:
    rng = np.random.default_rng(k)
    first, second = unit(rng, 20, k, 4), unit(rng, 20, other, 4)
    pairs = min(k, other)
    for user, found in enumerate(matched_cosine(first, second)):
        cosines = first[user] @ second[user].T
        cosines = cosines if k <= other else cosines.T
        best = max(
            sum(cosines[i, j] for i, j in enumerate(order)) for order in permutations(range(max(k, other)), pairs)
        )
        assert found == pytest.approx(best / pairs)


def test_order_and_length_of_interests_do_not_count() -> None:
    rng = np.random.default_rng(0)
    first = unit(rng, 10, 8, 16)
    second = 3 * first[:, rng.permutation(8)].astype(np.float16)
    np.testing.assert_allclose(matched_cosine(first, second), 1, atol=1e-3)
    assert matched_cosine(second, second).max() <= 1 + 1e-9, "float16 is not exactly of unit length"


def test_a_sample_is_that_of_the_users_not_of_their_order() -> None:
    ids = [f"user-{i}" for i in range(1000)]
    mixed = np.random.default_rng(1).permutation(ids)
    chosen = sample(pa.chunked_array([ids[:300], ids[300:]]), 50)
    assert chosen == sorted(set(chosen)) and len(chosen) == 50
    assert chosen == sample(pa.chunked_array([mixed]), 50) != sorted(ids)[:50]
    assert sample(pa.chunked_array([mixed]), 1000) == sample(pa.chunked_array([mixed]), 2000) == sorted(ids)
    assert sample(pa.chunked_array([], pa.string()), 50) == []


def test_sizes_tell_what_came_and_went() -> None:
    sizes = Sizes(a=10, b=12, kept=9)
    assert (sizes.added, sizes.gone) == (3, 1)


def test_quantiles_follow_the_mean() -> None:
    assert quantiles(np.arange(11) / 10) == pytest.approx([0.5, 0.0, 0.1, 0.5, 0.9])
    assert quantiles(np.array([0.25])) == [0.25] * 5


def test_those_who_change_most_come_first_and_unchanged_ones_not_at_all() -> None:
    shares = np.array([1.0, 0.5, 0.25, 0.5, 1.0])
    some = People(list("abcde"), 4, shares, None, np.zeros(5), np.ones((2, 5), np.int64))
    assert some.most_changed(2) == [2, 1]
    assert some.most_changed(5) == [2, 1, 3]


def evaluation(mean: float, **about: Any) -> dict[str, Any]:
    return {"champion": None, "rows": [row("HyMiRec", mean), row("popularity", 0.9)]} | about


def row(name: str, mean: float) -> dict[str, Any]:
    return {"name": name, "recall@50": {"mean": mean, "low": 0.0, "high": 1.0}, "coverage@50": mean / 2}


def test_figures_stand_side_by_side() -> None:
    found = {figure.metric: figure for figure in figures(evaluation(0.2), evaluation(0.3), "a")}
    assert list(found) == ["recall@50", "recall@200", "ndcg@10", "coverage@50"]
    assert (found["recall@50"].a, found["recall@50"].b) == (0.2, 0.3)
    assert (found["coverage@50"].a, found["coverage@50"].b) == (0.1, 0.15)
    assert (found["ndcg@10"].a, found["ndcg@10"].b) == (None, None), "not measured"
    assert not [figure for figure in found.values() if figure.a_there is not None or figure.lead is not None]


def test_the_same_users_count_only_where_a_was_the_champion() -> None:
    difference = {"mean": 0.05, "low": 0.01, "high": 0.09}
    cohorts = [
        {"cohort": cohort, "metric": "recall@50", "difference": difference if cohort == "all users" else {}}
        for cohort in ("all users", "sparse users")
    ]
    second = evaluation(0.3, champion={"release": "a", "same_model": False, "cohorts": cohorts})
    second["rows"].append(row("champion", 0.25))
    found = {figure.metric: figure for figure in figures(evaluation(0.2), second, "a")}
    assert found["recall@50"].a_there == 0.25 and found["recall@50"].lead == difference
    assert found["coverage@50"].a_there == 0.125 and found["coverage@50"].lead is None
    assert figures(evaluation(0.2), second, "another")[0].a_there is None
