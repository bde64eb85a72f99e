from __future__ import annotations

import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hymirec_model.errors import InputError
from jobs.platform.given_events import histories_of

ITEMS = {f"i{number}": number for number in range(10)}
DAY = 86_400
END = 11 * DAY
events = st.lists(st.tuples(st.sampled_from(sorted(ITEMS)), st.integers(0, 2 * END)), min_size=1, max_size=8)


@given(st.lists(events, max_size=4), st.none() | st.integers(0, 3 * END))
def test_order_is_by_time_and_ages_are_those_of_each_ones_present(
    batch: list[list[tuple[str, int]]], now: int | None
) -> None:
    histories, moments = histories_of(batch, ITEMS, now=now)
    assert len(histories) == len(batch)
    for row, (start, stop), moment in zip(batch, pairwise(histories.offsets), moments, strict=True):
        expected = sorted(row, key=lambda event: event[1])
        assert histories.items[start:stop].tolist() == [ITEMS[item] for item, _ in expected]
        assert histories.timestamps[start:stop].tolist() == [time for _, time in expected]
        if now is not None:
            assert moment == now
        else:
            assert moment % DAY == 0 and moment - DAY <= expected[-1][1] < moment


def test_unknown_items_are_left_out_on_demand_but_tell_the_time() -> None:
    row = [("new", END + DAY - 1), ("i1", END + 20)]
    histories, moments = histories_of([row], ITEMS, skip_unknown=True)
    assert (histories.items.tolist(), histories.timestamps.tolist()) == ([1], [END + 20])
    assert moments.tolist() == [END + DAY]


def test_numbers_of_numpy_and_fractions_of_seconds_are_times() -> None:
    rows = [("i1", np.int64(7)), ("i2", np.float32(6.5)), ("i3", 7.25)]
    histories, _ = histories_of([rows], ITEMS)
    assert histories.items.tolist() == [2, 1, 3] and histories.timestamps.tolist() == [6, 7, 7]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([[]], r"events: seen \[\]; allowed: one \(item_id, seconds since 1970\) or more"),
        ([[("i1", 1)], []], r"events of user 1 of 2: seen \[\]"),
        (["i1"], "events: seen 'i1'; allowed: one"),
        ([["i1", "i2"]], "events: seen 'i1'; allowed: "),
        ([[("i1", 1, 2)]], r"seen \('i1', 1, 2\)"),
        ([[(1, 1)]], r"seen \(1, 1\); allowed: \(item_id as a string"),
        ([[("i1", float("nan"))]], "events: seen time nan; allowed: seconds since 1970 UTC"),
        ([[("i1", float("inf"))]], "seen time inf"),
        ([[("i1", 1_512_086_400_000)]], r"seen time 1512086400000.*divide milliseconds by 1000"),
        ([[("i1", "2017-12-01")]], "seen time '2017-12-01'"),
        ([[("i1", datetime.datetime(2017, 12, 1))]], r"seen time datetime.*take \.timestamp\(\)"),
        (
            [[(f"x{number}", 1) for number in range(5)]],
            r"seen item_id 'x0', 'x1', 'x2' and 2 more; allowed: items of the release; pass skip_unknown=True",
        ),
    ],
)
def test_bad_events_are_named(batch: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        histories_of(batch, ITEMS)


def test_bad_present_and_nothing_known_are_named() -> None:
    with pytest.raises(InputError, match="now: seen time nan"):
        histories_of([[("i1", 1)]], ITEMS, now=float("nan"))
    with pytest.raises(InputError, match="events: seen 2 events, none of an item that the release holds"):
        histories_of([[("x", 1), ("y", 2)]], ITEMS, skip_unknown=True)
