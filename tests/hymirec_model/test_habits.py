"""The bonus of a user's own items, against a plain count of each."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hymirec_model.habits import FADE, PACE, among_own, bonus_of
from hymirec_model.retrieval import Merge


@given(st.lists(st.lists(st.integers(0, 5), max_size=12), max_size=6))
def test_equals_a_count_by_rank(taken: list[list[int]]) -> None:
    offsets = np.cumsum([0, *map(len, taken)])
    items = np.array([item for row in taken for item in row], np.int64)
    starts, own, values = bonus_of(offsets, items, 2.0, "lse", 20.0)
    assert starts.tolist()[0] == 0 and len(starts) == len(taken) + 1
    for user, row in enumerate(taken):
        sums: dict[int, float] = {}
        for rank, item in enumerate(reversed(row), 1):
            sums[item] = sums.get(item, 0.0) + rank**-FADE
        mine = slice(starts[user], starts[user + 1])
        assert own[mine].tolist() == sorted(sums)
        expected = [2.0 * math.log1p(PACE * sums[item]) for item in sorted(sums)]
        np.testing.assert_allclose(values[mine], expected, rtol=1e-6)


@pytest.mark.parametrize(("merge", "unit"), [("lse", 1.0), ("calibrated", 1.0), ("max", 20.0)])
def test_is_in_the_unit_of_the_score(merge: Merge, unit: float) -> None:
    offsets, items = np.array([0, 3]), np.array([7, 7, 2])
    logs = bonus_of(offsets, items, 4.0, "lse", 20.0)[2]
    np.testing.assert_allclose(bonus_of(offsets, items, 4.0, merge, 20.0)[2] * unit, logs, rtol=1e-6)
    assert not bonus_of(offsets, items, 0.0, merge, 20.0)[2].any()


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=5, max_size=5), min_size=1, max_size=4),
    st.lists(st.integers(0, 5), max_size=5),
    st.lists(st.integers(0, 8), min_size=1, max_size=8),
)
def test_tells_whose_own_an_item_is(rows: list[list[int]], lengths: list[int], wanted: list[int]) -> None:
    items = torch.tensor(rows)
    length = torch.tensor((lengths + [5] * len(rows))[: len(rows)])
    mask = torch.arange(5) >= 5 - length[:, None]
    found = among_own(items, mask, torch.tensor(wanted))
    own = [set(row[5 - int(n) :]) for row, n in zip(rows, length, strict=True)]
    assert found.tolist() == [[item in mine for item in wanted] for mine in own]
