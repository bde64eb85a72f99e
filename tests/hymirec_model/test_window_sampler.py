from __future__ import annotations

from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hymirec_model.errors import InputError
from hymirec_model.histories import Batch, Histories
from hymirec_model.window_sampler import WindowSampler, without_held_windows
from tests.hymirec_model.event_streams import Streams, back, of, streams


def numbered(rows: Streams) -> tuple[Histories, dict[int, tuple[int, int]]]:
    """Histories in which every event has an item of its own, and owner and timestamp by item (from 1)."""
    number, where, out = 0, {}, []
    for user, row in enumerate(rows):
        out.append([])
        for _, stamp in row:
            number += 1
            where[number] = (user, stamp)
            out[-1].append((number, stamp))
    return of(out), where


def qualified(rows: Streams) -> bool:
    return any(len({stamp for _, stamp in row}) > 1 for row in rows)


def rows_of(batch: Batch) -> list[tuple[list[int], list[int]]]:
    return [
        (items[mask].tolist(), targets[valid].tolist())
        for items, mask, targets, valid in zip(
            batch.items_BN, batch.mask_BN, batch.targets_BW, batch.target_mask_BW, strict=True
        )
    ]


@settings(max_examples=25, deadline=None)
@given(streams.filter(qualified), st.integers(2, 14), st.integers(1, 5), st.integers(0, 3))
def test_nothing_from_the_cut_on_reaches_a_batch_and_no_tie_is_split(
    rows: Streams, cut: int, window: int, seed: int
) -> None:
    histories, where = numbered(rows)
    training = histories.before(cut)
    if not qualified(back(training)):
        return
    sampler = WindowSampler(training, batch_users=8, history=6, window=window, seed=seed)
    for batch in [*islice(sampler, 4), *sampler.held_windows()]:
        for past, future in rows_of(batch):
            assert past and future, "a training window without history or without targets"
            assert len({where[item][0] for item in [*past, *future]}) == 1, "two users were mixed"
            assert max(where[item][1] for item in [*past, *future]) < cut
            assert max(where[item][1] for item in past) < min(where[item][1] for item in future)
            assert [*past, *future] == list(range(past[0], future[-1] + 1)), "events were skipped or reordered"


@settings(max_examples=25, deadline=None)
@given(streams.filter(qualified))
def test_of_each_user_at_least_the_newest_moment_is_drawn(rows: Streams) -> None:
    histories, where = numbered(rows)
    sampler = WindowSampler(histories, batch_users=128, history=6, window=2, seed=0, recent=0.0)
    seen = {where[future[0]] for batch in islice(sampler, 4) for _, future in rows_of(batch)}
    stamps = [sorted({stamp for _, stamp in row}) for row in rows]
    assert seen == {(user, row[-1]) for user, row in enumerate(stamps) if len(row) > 1}


@settings(max_examples=25, deadline=None)
@given(streams.filter(qualified), st.integers(1, 4), st.integers(0, 3))
def test_every_moment_but_the_first_is_drawn(rows: Streams, window: int, seed: int) -> None:
    histories, where = numbered(rows)
    seen = set()
    sampler = WindowSampler(histories, batch_users=128, history=6, window=window, seed=seed)
    for batch in islice(sampler, 8):
        seen |= {where[future[0]] for _, future in rows_of(batch)}
    stamps = [sorted({stamp for _, stamp in row}) for row in rows]
    assert seen == {(user, stamp) for user, row in enumerate(stamps) for stamp in row[1:]}


@settings(max_examples=25, deadline=None)
@given(streams.filter(qualified), st.integers(1, 4), st.integers(0, 3))
def test_held_windows_are_never_targets(rows: Streams, window: int, seed: int) -> None:
    histories, _ = numbered(rows)
    sampler = WindowSampler(histories, batch_users=16, history=6, window=window, seed=seed, held=99)
    held = {item for batch in sampler.held_windows() for _, future in rows_of(batch) for item in future}
    for batch in islice(sampler, 8):
        for past, future in rows_of(batch):
            assert not held & {*past, *future}


def test_held_windows_are_full_and_the_last_that_are() -> None:
    histories, _ = numbered([[(0, stamp) for stamp in (1, 2, 2, 3, 4, 5, 5, 6)], [(0, 1), (0, 2)], []])
    sampler = WindowSampler(histories, batch_users=4, history=9, window=3, seed=0, held=99)
    assert [rows_of(batch) for batch in sampler.held_windows()] == [[([1, 2, 3, 4, 5], [6, 7, 8])]]
    drawn = {tuple(future) for batch in islice(sampler, 20) for _, future in rows_of(batch)}
    assert drawn == {(2, 3, 4), (10,)}


def test_streams_of_equal_seeds_are_equal() -> None:
    histories, _ = numbered([[(0, stamp) for stamp in range(20)]] * 5)
    first, second, other = (
        [rows_of(batch) for batch in islice(WindowSampler(histories, batch_users=4, history=5, window=3, seed=s), 5)]
        for s in (3, 3, 4)
    )
    assert first == second != other


def test_shares_are_the_parts_of_one_stream() -> None:
    histories, _ = numbered([[(0, stamp) for stamp in range(20)]] * 5)

    def drawn(shares: int, share: int) -> list[list[tuple[list[int], list[int]]]]:
        sampler = WindowSampler(
            histories, batch_users=7, history=5, window=3, seed=0, held=2, shares=shares, share=share
        )
        return [rows_of(batch) for batch in islice(sampler, 4)]

    parts = [drawn(3, share) for share in range(3)]
    assert [len(part[0]) for part in parts] == [3, 2, 2]
    assert [[*chain(*together)] for together in zip(*parts, strict=True)] == drawn(1, 0)
    with pytest.raises(InputError, match="batch_users: seen 7 for 8 processes; allowed: at least one user for each"):
        drawn(8, 0)


@pytest.mark.parametrize("rows", [[], [[]], [[(1, 5)], []], [[(1, 5), (2, 5)], [(3, 1)]]])
def test_users_without_two_moments_cannot_train(rows: Streams) -> None:
    with pytest.raises(InputError, match=f"seen {len(rows)} users, none with events at two different moments"):
        WindowSampler(of(rows), batch_users=2, history=3, window=2, seed=0)


@pytest.mark.parametrize("window", [1, 3, 10])
def test_holding_back_leaves_something_to_train_on(window: int) -> None:
    """Short histories do not starve: a user all of whose moments would be held back is trained on instead."""
    histories, _ = numbered([[(0, stamp) for stamp in range(window + 2)]] * 4)
    sampler = WindowSampler(histories, batch_users=8, history=5, window=window, seed=0, held=99)
    assert rows_of(next(iter(sampler)))


def test_held_windows_tell_when_they_begin_and_which_targets_come_soon() -> None:
    histories = of([[(item, stamp) for item, stamp in enumerate((0, 1, 2, 3, 10, 11, 15))]])
    sampler = WindowSampler(histories, batch_users=4, history=9, window=3, seed=0, held=99)
    (batch,) = sampler.held_windows()
    assert batch.targets_BW.tolist() == [[4, 5, 6]]
    begins, soon = sampler.held_moments(5)
    assert begins.tolist() == [10] and soon.tolist() == [[True, True, False]]


def test_windows_of_a_later_day_were_left_out_on_the_earlier_one() -> None:
    """Stage 1 may be some days older than stage 2: people came, and some took more."""
    rng = np.random.default_rng(0)
    days = np.sort(rng.integers(0, 40, (600, 30)), axis=1)
    begun = rng.integers(0, 35, 600)
    rows = [[(0, int(day)) for day in row if day >= first] for row, first in zip(days, begun, strict=True)]
    later, where = numbered(rows)
    earlier = later.before(38)
    earlier = earlier.of_users(np.flatnonzero(np.diff(earlier.offsets))[::-1])  # numbered in another order
    left = set(without_held_windows(earlier, 3, 200).items.tolist())
    sampler = WindowSampler(later, batch_users=64, history=9, window=3, seed=0, held=200)
    held = [item for batch in sampler.held_windows() for _, future in rows_of(batch) for item in future]
    assert len({where[item][0] for item in held}) == 200
    assert np.mean([item in left for item in held]) < 0.05


@settings(max_examples=25, deadline=None)
@given(streams.filter(qualified), st.integers(1, 4))
def test_without_held_windows_every_other_event_is_left(rows: Streams, window: int) -> None:
    histories, _ = numbered(rows)
    sampler = WindowSampler(histories, batch_users=16, history=20, window=window, seed=0, held=99)
    held = [future for batch in sampler.held_windows() for _, future in rows_of(batch)]
    left = without_held_windows(histories, window, 99)
    gone = {item for item in histories.items.tolist() if item not in set(left.items.tolist())}
    assert {item for future in held for item in future} <= gone
    for user, row in enumerate(np.split(left.items, left.offsets[1:-1])):
        assert row.tolist() == histories.items[histories.offsets[user] :][: len(row)].tolist(), "the end alone is cut"
    whole = without_held_windows(histories, window, 0)
    assert np.array_equal(whole.items, histories.items) and np.array_equal(whole.offsets, histories.offsets)


DAY = 86_400


def test_moments_are_drawn_as_often_as_they_count_with_a_half_life() -> None:
    rows = [[(0, day * DAY) for day in days] for days in ((0, 4, 8), (0, 8), (0, 4))]
    histories, where = numbered(rows)  # moments at 4 and 8, at 8, at 4: they count 1/4 and 1, 1, 1/4
    sampler = WindowSampler(histories, batch_users=4_000, history=6, window=1, seed=0, half_life_days=2)
    drawn = [where[future[0]] for batch in islice(sampler, 4) for _, future in rows_of(batch)]
    expected = {(0, 4): 4 / 9 * 1 / 5, (0, 8): 4 / 9 * 4 / 5, (1, 8): 4 / 9, (2, 4): 1 / 9}
    for (user, day), chance in expected.items():
        assert drawn.count((user, day * DAY)) / len(drawn) == pytest.approx(chance, abs=0.02)
    items = {stamp: item for item, stamp in where.items()}
    targets = sampler.expected_targets(len(where) + 1)
    for (user, day), chance in expected.items():
        assert targets[items[user, day * DAY]] == pytest.approx(chance)
    assert targets.sum() == pytest.approx(1)


@settings(max_examples=25, deadline=None)
@given(streams.filter(qualified), st.floats(1e-6, 1e6), st.integers(0, 3))
def test_any_half_life_draws_moments_of_the_users_themselves(rows: Streams, half_life: float, seed: int) -> None:
    histories, where = numbered(rows)
    sampler = WindowSampler(histories, batch_users=16, history=6, window=3, seed=seed, half_life_days=half_life)
    for batch in islice(sampler, 3):
        for past, future in rows_of(batch):
            assert len({where[item][0] for item in [*past, *future]}) == 1
            assert max(where[item][1] for item in past) < min(where[item][1] for item in future)
