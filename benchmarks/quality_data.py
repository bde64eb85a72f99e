"""Real logs as tasks with a right answer: who is ranked for, what was held out, what training may see.

Shapes: U users, I items, h text state size.

A user's events are taken in the order of ``seq_rt`` (equal timestamps in a seeded random order) and items are numbered
at random, so neither tells what comes next. One cut serves both tasks: the last events of a user are held out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from benchmarks.item_vectors import embed_texts, texts_of
from hymirec_model.histories import Histories, Ints
from jobs.platform.local import state_folder

LogName = Literal["ml-1m", "amazon-beauty-2014", "amazon-toys-2014", "online-retail"]
LOGS: tuple[LogName, ...] = get_args(LogName)
Relevant = tuple[Ints, Ints]


@dataclass(frozen=True, slots=True)
class Window:
    """The second task's form for a log."""

    events: int
    """W: the last events that are held out."""
    least: int
    """Events that a user needs to take part."""


WINDOWS = {
    "ml-1m": Window(10, 20),
    "online-retail": Window(10, 20),
    "amazon-beauty-2014": Window(3, 8),
    "amazon-toys-2014": Window(3, 8),
}
MOST_USERS = 3_000  # that are ranked for, a seeded sample where there are more
REPEATS = ("online-retail",)  # people buy the same thing again, so what they had is not masked


@dataclass(frozen=True, slots=True)
class Task:
    """Whom to rank for."""

    past: Histories
    """Events before the held-out ones, of U users."""
    relevant: Relevant
    """Distinct held-out items: user u's are ``items[offsets[u]:offsets[u + 1]]``."""
    times: Ints
    """When the last of them was taken, seconds since 1970, of shape (U,)."""


@dataclass(frozen=True, slots=True)
class Log:
    """A log, cut."""

    name: LogName
    train: Histories
    """What every contender may learn from."""
    next_item: Task
    """The last event of each user (or of MOST_USERS); the events before it are known."""
    window: Task
    """The last W events of users with enough of them, as a set."""
    states_Ih: npt.NDArray[np.float32]
    """Text state of every item."""
    mask_seen: bool

    @property
    def items(self) -> int:
        """I."""
        return len(self.states_Ih)

    @property
    def late(self) -> npt.NDArray[np.bool_]:
        """Which users of ``next_item`` took theirs after nine tenths of what training sees.

        What newcomers are offered is measured on these: they come now, not years before the log ends.
        """
        return self.next_item.times >= np.quantile(self.train.timestamps, 0.9)


def load(name: LogName, shared: Path, *, validation: bool, seed: int = 0) -> Log:
    """Read a log and hold out its end; ``validation`` holds out what comes before that end, for tuning.

    Parameters
    ----------
    name : str
    shared : Path
        Folder with NAME/interactions.parquet and NAME/items.parquet.
    validation : bool
        The test events are dropped first, so no choice that is made on what is left has seen them.
    seed : int, default=0
        Of the numbers of the items.
    """
    histories, texts = _read(shared / name, seed)
    window = WINDOWS[name]
    if validation:
        histories = _train(histories, window)
    lengths = np.diff(histories.offsets)
    return Log(
        name=name,
        train=_train(histories, window),
        next_item=_task(histories, np.flatnonzero(lengths >= 2), 1),
        window=_task(histories, np.flatnonzero(lengths >= window.least), window.events),
        states_Ih=_states(name, texts),
        mask_seen=name not in REPEATS,
    )


def _read(folder: Path, seed: int) -> tuple[Histories, list[str]]:
    for file in ("interactions.parquet", "items.parquet"):
        if not (folder / file).is_file():
            raise SystemExit(f"error: no {folder / file}; allowed: a folder --shared that has it")
    table = pq.read_table(folder / "items.parquet")
    ids = np.asarray(table["item_id"].to_pylist(), object)
    order = np.random.default_rng(seed).permutation(len(ids))
    texts = texts_of(table)
    number = {ids[row]: place for place, row in enumerate(order)}
    log = pq.read_table(folder / "interactions.parquet").sort_by([("user_id", "ascending"), ("seq_rt", "ascending")])
    user_ids, starts = np.unique(np.asarray(log["user_id"].to_pylist(), object).astype(str), return_index=True)
    offsets = np.append(starts, log.num_rows).astype(np.int64)
    stamps = np.asarray(log["timestamp"], np.int64)
    items = np.asarray([number[item] for item in log["item_id"].to_pylist()], np.int64)
    histories = Histories(user_ids.astype(object), offsets, items, _one_by_one(stamps, offsets))
    return histories, [texts[row] for row in order]


def _one_by_one(stamps: Ints, offsets: Ints) -> Ints:
    """Timestamps with ties broken by seconds: both tasks cut inside a tie, so training may do so too."""
    place = np.arange(len(stamps))
    tied = np.zeros(len(stamps), bool)
    tied[1:] = stamps[1:] == stamps[:-1]
    tied[offsets[:-1][np.diff(offsets) > 0]] = False
    first = np.maximum.accumulate(np.where(tied, 0, place))
    return stamps + (place - first)


def _train(histories: Histories, window: Window) -> Histories:
    lengths = np.diff(histories.offsets)
    return _without_last(histories, np.where(lengths >= window.least, window.events, np.minimum(lengths, 1)))


def _without_last(histories: Histories, dropped: Ints) -> Histories:
    lengths = np.diff(histories.offsets)
    place = np.arange(len(histories.items)) - np.repeat(histories.offsets[:-1], lengths)
    kept = place < np.repeat(lengths - dropped, lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths - dropped)]).astype(np.int64)
    return Histories(histories.user_ids, offsets, histories.items[kept], histories.timestamps[kept])


def _task(histories: Histories, users: Ints, events: int) -> Task:
    users = np.sort(np.random.default_rng(0).permutation(users)[:MOST_USERS])
    chosen = histories.of_users(users)
    past = _without_last(chosen, np.full(len(users), events))
    held = chosen.newest(events)
    span = int(held.items.max()) + 1
    pairs = np.unique(held.users * span + held.items)
    counts = np.bincount(pairs // span, minlength=len(users))
    relevant = (np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), pairs % span)
    return Task(past, relevant, held.timestamps[held.offsets[1:] - 1])


def _states(name: LogName, texts: list[str]) -> npt.NDArray[np.float32]:
    kept = state_folder() / "cache" / "benchmarks" / f"{name}-items-minilm.npy"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, embed_texts(texts, "minilm", name))
    return np.asarray(np.load(kept))
