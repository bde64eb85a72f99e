"""Logs of any size with the marginals of The Complete Journey: copies of its households."""

from __future__ import annotations

import datetime
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from tqdm import tqdm

from jobs.platform.warehouse import Warehouse

NEIGHBOURS = 16  # products of about equal popularity that a copy exchanges with one another
DAY_SECONDS = 86_400

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RealLog:
    """The log that is copied, by time; products are numbered by falling popularity."""

    users: Ints
    items: Ints
    timestamps: Ints
    item_ids: npt.NDArray[np.object_]
    days: list[str]

    @classmethod
    def imported(cls, folder: Path) -> RealLog:
        """Import the log into ``folder``, once."""
        wh = Warehouse(str(folder))
        if not wh.partitions("events"):
            command = [sys.executable, "-m", "jobs.import_events", "--source", "completejourney", "--warehouse", wh.uri]
            subprocess.run(command, check=True)
        table = pads.dataset(f"{folder}/events", format="parquet").to_table(["user_id", "item_id", "timestamp"])
        table = table.sort_by("timestamp")
        _, users = np.unique(np.asarray(table["user_id"], object), return_inverse=True)
        ids, items, counts = np.unique(np.asarray(table["item_id"], object), return_inverse=True, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        rank = np.argsort(order)
        return cls(users, rank[items], np.asarray(table["timestamp"]), ids[order], wh.partitions("events"))

    def of_days(self, first: str, last: str) -> slice:
        """Events from one day to another, both included."""
        ends = [int(np.datetime64(first).astype("datetime64[s]").astype(np.int64))]
        ends.append(int(np.datetime64(last).astype("datetime64[s]").astype(np.int64)) + DAY_SECONDS)
        return slice(*np.searchsorted(self.timestamps, ends))


class Copies:
    """The log of ``events`` events: whole copies of the real log's households, and a share of them.

    Parameters
    ----------
    real : RealLog
    events : int
    """

    def __init__(self, real: RealLog, events: int) -> None:
        self.real, copies = real, events / len(real.users)
        random = np.random.default_rng(0)
        n_users = int(real.users.max()) + 1
        self._kept = [np.ones(n_users, bool)] * int(copies)
        if copies % 1:
            self._kept.append(random.random(n_users) < copies % 1)
        self._exchanged = [_exchange(len(real.item_ids), random) for _ in self._kept]

    def write_day(self, wh: Warehouse, ds: str, span: slice, file: str = "part-00000.parquet") -> int:
        """Write the copies of a span of real events as those of day ``ds``; returns how many there are."""
        users, items, stamps = (values[span] for values in (self.real.users, self.real.items, self.real.timestamps))
        midnight = int(datetime.datetime.fromisoformat(f"{ds}T00:00:00+00:00").timestamp())
        tables = []
        for copy, (kept, exchanged) in enumerate(zip(self._kept, self._exchanged, strict=True)):
            mine = kept[users]
            names = [f"{copy}-{user}" for user in users[mine]]
            ids, times = self.real.item_ids[exchanged[items[mine]]], midnight + stamps[mine] % DAY_SECONDS
            columns = {"user_id": pa.array(names, pa.string()), "item_id": pa.array(ids, pa.string())}
            tables.append(pa.table(columns | {"timestamp": pa.array(times)}))
        table = pa.concat_tables(tables)
        target = Path(wh.uri) / "events" / f"ds={ds}" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, target)
        return table.num_rows

    def write(self, wh: Warehouse, days: list[str]) -> int:
        """Write the copies of real days; returns the number of events."""
        return sum(self.write_day(wh, ds, self.real.of_days(ds, ds)) for ds in tqdm(days, desc="log", unit="day"))


def _exchange(items: int, random: np.random.Generator) -> Ints:
    """Which product stands for each: one of about its popularity."""
    places = np.arange(items)
    keys = places // NEIGHBOURS + random.random(items)
    return np.argsort(keys)
