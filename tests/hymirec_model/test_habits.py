"""The bonus of a user's own items, against a plain count of each."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hymirec_model.habits import FADE, NONE, PACE, Habits, among_own, bonus_of
from hymirec_model.histories import Histories
from hymirec_model.merging import Merge

HOUR = 3600


def log_of(taken: list[list[tuple[int, int]]]) -> Histories:
    """Each user's events as (item, hours since the one before)."""
    hours = [hour for row in taken for hour in np.cumsum([gap for _, gap in row])]
    items = [item for row in taken for item, _ in row]
    offsets = np.cumsum([0, *map(len, taken)])
    return Histories(np.arange(len(taken)).astype(object), offsets, np.array(items, np.int64), HOUR * np.int64(hours))


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 5), st.sampled_from([0, 1, 23, 24])), max_size=12), max_size=6),
    st.sampled_from([0.0, 1.5]),
)
def test_equals_a_count_by_rank_less_what_the_last_day_had(taken: list[list[tuple[int, int]]], satiety: float) -> None:
    starts, own, values = bonus_of(log_of(taken), Habits(2.0, satiety), "lse", 20.0)
    assert starts.tolist()[0] == 0 and len(starts) == len(taken) + 1
    for user, row in enumerate(taken):
        sums: dict[int, float] = {}
        sated: set[int] = set()
        hours = 0
        for rank, (item, gap) in enumerate(reversed(row), 1):
            late = bool(satiety) and hours < 24
            sated |= {item} if late else set()
            sums[item] = sums.get(item, 0.0) + (0.0 if late else rank**-FADE)
            hours += gap
        mine = slice(starts[user], starts[user + 1])
        assert own[mine].tolist() == sorted(sums)
        expected = [2.0 * math.log1p(PACE * sums[item]) - satiety * (item in sated) for item in sorted(sums)]
        np.testing.assert_allclose(values[mine], expected, rtol=1e-6)


@pytest.mark.parametrize(("merge", "unit"), [("lse", 1.0), ("calibrated", 1.0), ("max", 20.0)])
def test_is_in_the_unit_of_the_score(merge: Merge, unit: float) -> None:
    log = log_of([[(7, 0), (7, 30), (2, 30)]])
    logs = bonus_of(log, Habits(4.0, 1.0), "lse", 20.0)[2]
    assert logs.min() < 0 < logs.max()
    np.testing.assert_allclose(bonus_of(log, Habits(4.0, 1.0), merge, 20.0)[2] * unit, logs, rtol=1e-6)
    assert not bonus_of(log, NONE, merge, 20.0)[2].any()


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
