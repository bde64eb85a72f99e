from __future__ import annotations

import shutil
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.platform.user_histories import UserHistories, merged
from jobs.platform.user_rows import bucket_of
from jobs.platform.warehouse import Warehouse
from tests.small_model import BUCKETS, DAY, table, write_histories

SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "item_indices": pa.list_(pa.int32()),
        "timestamps": pa.list_(pa.int64()),
        "weights": pa.list_(pa.float32()),
        "n_events": pa.int64(),
    }
)
events = st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 9), st.integers(0, 5)), min_size=1, max_size=25)


def layer(log: list[tuple[str, int, int]], max_length: int) -> pa.Table:
    """Histories of (user, time, item) as update_histories writes them; an event's weight is its item."""
    rows: list[dict[str, Any]] = []
    for user, own in groupby(sorted(log, key=lambda event: event[:2]), key=lambda event: event[0]):
        times_items = [event[1:] for event in own]
        kept = times_items[-max_length:]
        items = [item for _, item in kept]
        lists = {"item_indices": items, "timestamps": [time for time, _ in kept], "weights": items}
        rows.append({"user_id": user, **lists, "n_events": len(times_items)})
    return pa.Table.from_pylist(rows, SCHEMA)


@given(st.lists(events, min_size=1, max_size=4), st.integers(1, 6), st.integers(0, 9))
def test_layers_merged_are_one_layer_of_the_whole_log(
    days: list[list[tuple[str, int, int]]], max_length: int, keep_from: int
) -> None:
    whole = layer([event for day in days for event in day], max_length)
    layers = [layer(day, max_length) for day in days]
    assert merged(layers, max_length).equals(whole)
    if len(days) > 2:  # whichever layers are put together first
        assert merged([layers[0], merged(layers[1:], max_length)], max_length).equals(whole)
        assert merged([merged(layers[:-1], max_length), layers[-1]], max_length).equals(whole)
    kept = merged(layers, max_length, keep_from).to_pylist()
    expected = []
    for row in whole.to_pylist():
        old = sum(time < keep_from for time in row["timestamps"])
        if old < len(row["timestamps"]):
            expected.append(row | {name: row[name][old:] for name in ("item_indices", "timestamps", "weights")})
    assert kept == expected
    counts = merged([table.select(["user_id", "n_events"]) for table in layers], max_length)
    assert counts.equals(whole.select(["user_id", "n_events"]))


def test_a_sample_reads_no_more_buckets_than_it_needs(tmp_path: Path) -> None:
    wh = Warehouse(str(tmp_path))
    write_histories(wh, table(60, 300))
    histories = UserHistories.find(wh, DAY)
    lists = ["item_indices", "timestamps"]
    everybody = histories.read(lists)
    assert everybody.num_rows == 60 and histories.read(lists, 60).equals(everybody)
    for most in (1, 25, 59):
        sample = histories.read(lists, most)
        assert sample.num_rows == most and sample.equals(histories.read(lists, most))
        assert set(sample["user_id"].to_pylist()) < set(everybody["user_id"].to_pylist())
    first = histories.bucket(histories.buckets[0], lists)
    (wh.local_copy(histories.layers[0]) / f"{histories.buckets[-1]}/part-00000.parquet").write_bytes(b"never read")
    assert BUCKETS == 3 and histories.read(lists, first.num_rows).equals(first)


@pytest.mark.parametrize("keep_from", [0, 5])
def test_people_whose_bucket_is_empty_have_no_history(tmp_path: Path, keep_from: int) -> None:
    wh = Warehouse(str(tmp_path))
    write_histories(wh, table(1, 300))
    one = wh.partition("histories", DAY)
    with wh.write_partition("histories", DAY) as part:
        shutil.copytree(wh.local_copy(one), part.local, dirs_exist_ok=True)
        part.info |= one.info | {"keep_from": keep_from}
    histories = UserHistories.find(wh, DAY)
    elsewhere = [f"nobody-{n}" for n in range(20) if bucket_of(f"nobody-{n}", BUCKETS) not in histories.buckets]
    assert elsewhere and histories.users(elsewhere).num_rows == 0
    assert histories.users(["user-000", *elsewhere], ["item_indices", "timestamps"]).num_rows == 1
