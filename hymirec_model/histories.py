"""User histories as ragged arrays, and the batches that training and inference read from them.

Shapes: U users, B users of a batch, N history positions, W targets. Histories run oldest → newest and are padded at
the front, so the newest event always stands in the last column.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from hymirec_model.errors import require

Ints = npt.NDArray[np.int64]
AGE_BUCKETS = RANK_BUCKETS = 64
DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Batch:
    """Histories of B users, and their targets where they have any."""

    items_BN: Tensor
    """Item indices, 0 where there is no event."""
    ages_BN: Tensor
    """Age buckets, see :func:`age_bucket`."""
    mask_BN: Tensor
    """True where there is an event."""
    targets_BW: Tensor
    """Item indices of the next events, oldest first; W = 0 at inference."""
    target_mask_BW: Tensor

    def packed(self) -> Batch:
        """Return the batch as it travels to a device: six bytes an event instead of seventeen."""
        kinds = {"items_BN": torch.int32, "ages_BN": torch.uint8, "targets_BW": torch.int32}
        return replace(self, **{name: getattr(self, name).to(kind) for name, kind in kinds.items()})

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``."""
        if device == self.items_BN.device:
            return self
        sent = {name: tensor.to(device, non_blocking=True) for name, tensor in vars(self.packed()).items()}
        return Batch(**{name: tensor if "mask" in name else tensor.long() for name, tensor in sent.items()})

    def nbytes(self) -> int:
        """Bytes of all its numbers."""
        return sum(tensor.nbytes for tensor in vars(self).values())


@dataclass(frozen=True)
class Histories:
    """Events of U users: user u's are ``items[offsets[u]:offsets[u + 1]]``, oldest → newest."""

    user_ids: npt.NDArray[np.object_]
    offsets: Ints
    items: Ints
    timestamps: Ints
    """Seconds since 1970, UTC."""

    def __len__(self) -> int:
        return len(self.user_ids)

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Histories:
        """Read a table with columns user_id, item_indices, timestamps.

        Raises
        ------
        InputError
            If a history's lists differ in length.
        """
        items, stamps = (_lists(table[name]) for name in ("item_indices", "timestamps"))
        lengths = [np.asarray(pa.compute.list_value_length(column), np.int64) for column in (items, stamps)]
        require(
            np.array_equal(lengths[0], lengths[1]),
            "histories: item_indices and timestamps differ in length; rerun update_histories",
        )
        return cls(
            user_ids=table["user_id"].to_numpy(),
            offsets=np.concatenate([[0], np.cumsum(lengths[0])]).astype(np.int64),
            items=np.asarray(items.flatten(), np.int64),
            timestamps=np.asarray(stamps.flatten(), np.int64),
        )

    @property
    def users(self) -> Ints:
        """User number of every event, of shape (events,)."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def before(self, timestamp: int) -> Histories:
        """Return the histories with only the events before ``timestamp`` (users without any stay, empty)."""
        return self.keep(self.timestamps < timestamp)

    def since(self, timestamp: int) -> Histories:
        """Return the histories with only the events at or after ``timestamp`` (users without any stay, empty)."""
        return self.keep(self.timestamps >= timestamp)

    def only_items(self, kept_items: npt.NDArray[np.bool_]) -> Histories:
        """Return the histories with only the events whose item is marked in ``kept_items`` of shape (items,)."""
        return self.keep(kept_items[self.items])

    def newest(self, count: int) -> Histories:
        """Return the histories with each user's newest ``count`` events."""
        return self.keep(np.arange(len(self.items)) >= np.repeat(self.offsets[1:] - count, np.diff(self.offsets)))

    def up_to(self, ends: Ints) -> Histories:
        """Return the histories with only user u's events at places before ``ends[u]`` of ``items``."""
        return self.keep(np.arange(len(self.items)) < np.repeat(ends, np.diff(self.offsets)))

    def of_users(self, chosen: Ints) -> Histories:
        """Return the histories of the users numbered ``chosen``, in that order."""
        starts, lengths = self.offsets[chosen], np.diff(self.offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Histories(self.user_ids[chosen], offsets, self.items[rows], self.timestamps[rows])

    def keep(self, kept: npt.NDArray[np.bool_]) -> Histories:
        """Return the histories with only the events that are marked in ``kept`` of shape (events,)."""
        running = np.concatenate([[0], np.cumsum(kept)])
        return Histories(self.user_ids, running[self.offsets], self.items[kept], self.timestamps[kept])


def _lists(column: Any) -> Any:
    """A list column as one array; pyarrow's types do not tell a ListArray from others."""
    return column.combine_chunks()


def age_bucket(seconds: Ints) -> Ints:
    """Age of an event → bucket 0 … AGE_BUCKETS - 1, four a doubling, from below an hour to above five years."""
    hours = np.maximum(seconds, 0) / 3600
    buckets: Ints = np.minimum(4 * np.log2(1 + hours), AGE_BUCKETS - 1).astype(np.int64)
    return buckets


def rank_buckets(columns: int) -> Tensor:
    """Bucket of the place from the end of each of ``columns`` events (newest last): four a doubling, long (N,)."""
    rank_N = torch.arange(columns - 1, -1, -1)
    return (4 * torch.log2(1 + rank_N.double())).long().clamp_max(RANK_BUCKETS - 1)


def rank_of_bucket() -> Tensor:
    """About how many newer events an event in each bucket has, of shape (RANK_BUCKETS,)."""
    return 2 ** (torch.arange(RANK_BUCKETS) / 4) - 1


def window_batch(
    histories: Histories, users: Ints, cuts: Ints, now: Ints, history: int, window: int, *, padded: bool = False
) -> Batch:
    """Gather what came before a position of each user's history, and the events from there on.

    Parameters
    ----------
    histories : Histories
    users : int array of shape (B,)
        User numbers.
    cuts : int array of shape (B,)
        Position in ``histories.items`` of the first event that the model must not see.
    now : int array of shape (B,)
        Seconds since 1970 from which ages are counted.
    history, window : int
        N and W.
    padded : bool, default=False
        Keep columns that are padding for every user; else they are cut off, and N may be smaller (at least 1).

    Returns
    -------
    Batch
    """
    starts, ends = histories.offsets[users], histories.offsets[users + 1]
    columns = history if padded else int(np.clip((cuts - starts).max(initial=1), 1, history))
    before_BN = cuts[:, None] + np.arange(-columns, 0)
    mask_BN = before_BN >= starts[:, None]
    after_BW = cuts[:, None] + np.arange(window)
    target_mask_BW = after_BW < ends[:, None]
    last = max(len(histories.items) - 1, 0)

    def gather(values: Ints, rows: Ints, mask: npt.NDArray[np.bool_]) -> Ints:
        if not len(values):
            return np.zeros(rows.shape, np.int64)
        return np.where(mask, values[np.clip(rows, 0, last)], 0)

    ages_BN = np.where(mask_BN, age_bucket(now[:, None] - gather(histories.timestamps, before_BN, mask_BN)), 0)
    arrays = (
        gather(histories.items, before_BN, mask_BN),
        ages_BN,
        mask_BN,
        gather(histories.items, after_BW, target_mask_BW),
        target_mask_BW,
    )
    return Batch(*(torch.from_numpy(array) for array in arrays))


def day_end(timestamps: Ints) -> Ints:
    """End of the day (UTC) of each timestamp, all in seconds since 1970."""
    return (timestamps // DAY_SECONDS + 1) * DAY_SECONDS


def newest_batch(histories: Histories, users: Ints, history: int, now: Ints | None = None) -> Batch:
    """Gather the newest ``history`` events of each user, padded to as many columns; no targets.

    Parameters
    ----------
    histories : Histories
    users : int array of shape (B,)
    history : int
        N.
    now : int array of shape (B,), optional
        Seconds since 1970 from which ages are counted. Default: the end of the day of a user's newest event, so that
        a user nobody has heard of since keeps the same input; when the person comes back is not known.
    """
    ends = histories.offsets[users + 1]
    if now is None:
        now = np.zeros(len(users), np.int64)
        some = ends > histories.offsets[users]
        now[some] = day_end(histories.timestamps[ends[some] - 1])
    return window_batch(histories, users, ends, now, history, 0, padded=True)
