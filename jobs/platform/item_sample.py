"""Samples of items: their vectors, streamed from the table, and how often they come in histories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jobs.platform import columns
from jobs.platform.errors import WarehouseError
from jobs.platform.profile import Profile
from jobs.platform.training import without_held_out
from jobs.platform.user_histories import UserHistories
from jobs.platform.warehouse import Partition, Warehouse


@dataclass(frozen=True, slots=True)
class ItemSample:
    """Vectors of sampled items; memory holds the sample, not the table.

    Parameters
    ----------
    wh : Warehouse
    table : Partition
        item_vectors.
    seed : int
    """

    wh: Warehouse
    table: Partition
    seed: int

    def rows(self, items: npt.NDArray[np.integer], limit: int) -> npt.NDArray[np.integer]:
        """At most ``limit`` of the items, drawn at random, in ascending order."""
        if len(items) <= limit:
            return items
        return np.sort(np.random.default_rng(self.seed).choice(items, limit, replace=False))

    def vectors(self, items: npt.NDArray[np.integer], limit: int) -> npt.NDArray[np.floating]:
        """Vectors of at most ``limit`` of the items, in random order."""
        found = columns.vectors(self.wh, self.table, rows=self.rows(items, limit))
        return found[np.random.default_rng(self.seed).permutation(len(found))]

    def drawn(
        self, items: npt.NDArray[np.integer], weight: npt.NDArray[np.integer], limit: int
    ) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.int64]]:
        """Vectors of ``limit`` draws by weight, and how often each was drawn; where there are no more items, of all of
        them, with their weights."""
        if len(items) <= limit:
            return columns.vectors(self.wh, self.table, rows=items), weight.astype(np.int64)
        draws = np.random.default_rng(self.seed).choice(items, limit, p=weight / weight.sum())
        rows, times = np.unique(draws, return_counts=True)
        return columns.vectors(self.wh, self.table, rows=rows), times


def event_counts(wh: Warehouse, ds: str, profile: Profile, n_items: int) -> npt.NDArray[np.int64]:
    """Events of each item in histories/ds without the held-out days, of shape (n_items,); a bucket at a time.

    Raises
    ------
    WarehouseError
        If an event is of an item that the catalogue does not have.
    """
    from hymirec_model.histories import Histories

    counts = np.zeros(n_items, np.int64)
    for table in UserHistories.find(wh, ds).by_bucket(["item_indices", "timestamps"]):
        items = without_held_out(Histories.from_arrow(table), ds, profile).items
        if items.max(initial=-1) >= n_items:
            raise WarehouseError(
                f"histories/ds={ds}: seen item_index {items.max()}; allowed: below {n_items}, the items of "
                f"item_vectors/ds={ds}; run this day again from check_inputs"
            )
        counts += np.bincount(items, minlength=n_items)
    return counts
