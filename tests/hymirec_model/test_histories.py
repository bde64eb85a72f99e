from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hymirec_model.errors import InputError
from hymirec_model.histories import (
    AGE_BUCKETS,
    Histories,
    age_bucket,
    day_end,
    newest_batch,
    window_batch,
)
from tests.hymirec_model.event_streams import Streams, back, of, streams


@settings(max_examples=25, deadline=None)
@given(streams, st.integers(-1, 14), st.sets(st.integers(0, 9)), st.data())
def test_cutting_and_choosing_equals_plain_python(rows: Streams, cut: int, kept: set[int], data: st.DataObject) -> None:
    histories = of(rows)
    assert back(histories) == rows
    assert histories.users.tolist() == [user for user, row in enumerate(rows) for _ in row]
    assert back(histories.before(cut)) == [[e for e in row if e[1] < cut] for row in rows]
    assert back(histories.since(cut)) == [[e for e in row if e[1] >= cut] for row in rows]
    marks = np.isin(np.arange(10), list(kept))
    assert back(histories.only_items(marks)) == [[e for e in row if e[0] in kept] for row in rows]
    numbers = data.draw(st.lists(st.integers(0, len(rows) - 1)) if rows else st.just([]))
    chosen = histories.of_users(np.array(numbers, np.int64))
    assert back(chosen) == [rows[number] for number in numbers]
    assert chosen.user_ids.tolist() == [f"u{number}" for number in numbers]


def test_chunks_and_slices_of_a_table_do_not_matter() -> None:
    rows = [[(1, 1), (2, 2)], [], [(3, 3)], [(4, 4), (5, 4), (6, 9)]]
    whole = pa.table(
        {
            "user_id": [f"u{number}" for number in range(4)],
            "item_indices": pa.array([[e[0] for e in row] for row in rows], pa.list_(pa.int32())),
            "timestamps": pa.array([[e[1] for e in row] for row in rows], pa.list_(pa.int64())),
        }
    )
    assert back(Histories.from_arrow(pa.concat_tables([whole.slice(0, 1), whole.slice(1)]))) == rows
    assert back(Histories.from_arrow(whole.slice(2))) == rows[2:]


def test_lists_of_different_length_are_refused() -> None:
    table = pa.table({"user_id": ["u"], "item_indices": [[1, 2]], "timestamps": [[1]]})
    with pytest.raises(InputError, match="differ in length; rerun update_histories"):
        Histories.from_arrow(table)


def test_age_buckets_grow_with_age_and_stay_in_range() -> None:
    buckets = age_bucket(np.array([-5, 0, 3599, 3600, 86_400, 30 * 86_400, 6 * 365 * 86_400, 10**12]))
    assert buckets[0] == buckets[1] == 0 and buckets[-1] == AGE_BUCKETS - 1
    assert (np.diff(buckets) >= 0).all() and len(set(buckets[3:].tolist())) >= 4


@settings(max_examples=25, deadline=None)
@given(streams.filter(bool), st.integers(1, 20), st.integers(0, 6), st.data())
def test_windows_are_padded_at_the_front_and_keep_the_order(
    rows: Streams, history: int, window: int, data: st.DataObject
) -> None:
    histories = of(rows)
    users = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=5)), np.int64)
    places = [data.draw(st.integers(0, len(rows[user]))) for user in users]
    now = np.full(len(users), 20 * 3600)
    batch = window_batch(histories, users, histories.offsets[users] + places, now, history, window)
    assert batch.items_BN.shape[1] == max(1, min(history, max(places)))
    for number, (user, place) in enumerate(zip(users, places, strict=True)):
        past, future = rows[user][max(0, place - history) : place], rows[user][place : place + window]
        mask = batch.mask_BN[number].numpy()
        assert mask.tolist() == [False] * (len(mask) - len(past)) + [True] * len(past)
        assert batch.items_BN[number].tolist() == [0] * (len(mask) - len(past)) + [item for item, _ in past]
        ages = age_bucket(np.array([20 * 3600 - stamp for _, stamp in past], np.int64))
        assert batch.ages_BN[number].tolist() == [0] * (len(mask) - len(past)) + ages.tolist()
        spare = window - len(future)
        assert batch.targets_BW[number].tolist() == [item for item, _ in future] + [0] * spare
        assert batch.target_mask_BW[number].tolist() == [True] * len(future) + [False] * spare


def test_newest_events_stand_last_and_there_are_no_targets() -> None:
    batch = newest_batch(of([[(1, 1), (2, 2), (3, 3)], [], [(4, 4)]]), np.array([2, 0, 1]), 2)
    assert batch.items_BN.tolist() == [[0, 4], [2, 3], [0, 0]]
    assert batch.mask_BN.tolist() == [[False, True], [True, True], [False, False]]
    assert batch.targets_BW.shape == (3, 0)
    assert newest_batch(of([[(1, 1)]]), np.array([0]), 4).items_BN.tolist() == [[0, 0, 0, 1]]


def test_a_batch_travels_in_few_bytes_and_arrives_as_it_was() -> None:
    histories = of([[(item, item * 3600**2) for item in range(9)], [(2**31 - 1, 5)]])
    batch = window_batch(histories, np.array([0, 1]), np.array([8, 10]), np.full(2, 10**9), 8, 1)
    packed = batch.packed()
    for name, tensor in vars(batch).items():
        assert torch.equal(vars(packed)[name].to(tensor.dtype), tensor), name
    assert (batch.nbytes(), packed.nbytes()) == (2 * (8 * 17 + 9), 2 * (8 * 6 + 5))
    arrived = batch.to(torch.device("meta"))  # what a device without memory shows of the way
    assert {name: tensor.dtype for name, tensor in vars(arrived).items()} == {
        name: tensor.dtype for name, tensor in vars(batch).items()
    }
    assert batch.to(torch.device("cpu")) is batch


def test_a_day_ends_at_the_next_midnight() -> None:
    midnight = int(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC).timestamp())
    assert day_end(np.array([midnight - 86_400, midnight - 1, midnight])).tolist() == [
        midnight,
        midnight,
        midnight + 86_400,
    ]
