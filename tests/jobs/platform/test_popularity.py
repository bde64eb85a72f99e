from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.platform.popularity import GROUPS, by_popularity, popularity_groups

COUNTS = st.lists(st.integers(0, 50), min_size=1, max_size=60).map(np.array)


@given(COUNTS)
def test_groups_are_ordered_by_popularity_and_share_the_events(counts: np.ndarray) -> None:
    groups = popularity_groups(counts)
    assert ((groups == GROUPS) == (counts == 0)).all()
    for group in range(GROUPS):
        here, rarer = counts[groups == group], counts[groups > group]
        assert not len(here) or not len(rarer) or here.min() >= rarer.max()
        assert here.sum() <= counts.sum() / GROUPS + counts.max(), "a tenth, but for one item at either end"


@given(COUNTS, st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_shares_add_up(counts: np.ndarray, users: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lists = {"a": np.stack([rng.permutation(len(counts)) for _ in range(users)])}
    taken = rng.integers(0, len(counts), users)
    found = by_popularity(lists, (np.arange(users + 1), taken), counts)
    assert sum(group["items"] for group in found) == len(counts)
    assert sum(group["taken"] for group in found) == pytest.approx(1)
    assert sum(group["rows"][0]["places"] for group in found) == pytest.approx(1)
    if len(counts) <= 50:
        assert all(group["rows"][0]["coverage"] == 1 for group in found), "everybody is shown everything"


def test_a_ranking_by_popularity_stays_with_popular_items() -> None:
    counts = np.repeat([100, 1, 0], [10, 1000, 5])
    lists = {"popular": np.tile(np.arange(10), (3, 1)), "short": np.array([[1012, -1], [1012, -1], [-1, -1]])}
    found = by_popularity(lists, (np.array([0, 1, 2, 3]), np.array([0, 500, 1012])), counts)
    rows = {group["group"]: {row["name"]: row for row in group["rows"]} for group in found}
    assert sum(rows[group]["popular"]["places"] for group in "12345") == pytest.approx(1)
    assert rows["1"]["popular"]["coverage"] == 1 and rows["9"]["popular"]["coverage"] == 0
    assert rows["none"]["short"] == {"name": "short", "places": 1, "coverage": 0.2}
    assert {group["group"]: group["taken"] for group in found}["none"] == pytest.approx(1 / 3)
