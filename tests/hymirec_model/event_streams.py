"""Histories of users from plain lists, made by hypothesis or written out."""

from __future__ import annotations

from itertools import pairwise

import pyarrow as pa
from hypothesis import strategies as st

from hymirec_model.histories import Histories

Streams = list[list[tuple[int, int]]]
"""Events (item, timestamp) of every user, oldest first."""

# Timestamps from a small range: most moments hold several events.
events = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), max_size=14)
streams = st.lists(events.map(lambda rows: sorted(rows, key=lambda row: row[1])), max_size=6)


def of(rows: Streams) -> Histories:
    table = pa.table(
        {
            "user_id": pa.array([f"u{number}" for number in range(len(rows))], pa.string()),
            "item_indices": pa.array([[item for item, _ in row] for row in rows], pa.list_(pa.int32())),
            "timestamps": pa.array([[stamp for _, stamp in row] for row in rows], pa.list_(pa.int64())),
        }
    )
    return Histories.from_arrow(table)


def back(histories: Histories) -> Streams:
    pairs = list(zip(histories.items.tolist(), histories.timestamps.tolist(), strict=True))
    return [pairs[start:end] for start, end in pairwise(histories.offsets.tolist())]
