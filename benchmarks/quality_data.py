"""Real logs as tasks with a right answer: who is ranked for, what was held out, what training may see.

Shapes: U users, I items, h text state size.

A user's events are taken in the order of ``seq_rt`` (equal timestamps in a seeded random order) and items are numbered
at random, so neither tells what comes next. Two protocols: *leave last* holds out the last events of each user, in one
cut for both of its tasks; *by time* holds out a week of everybody, as a nightly refresh does (a global temporal split).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from benchmarks.item_vectors import embed_texts, texts_of
from hymirec_model.histories import DAY_SECONDS, Histories, Ints
from jobs.platform.local import state_folder

LogName = Literal["ml-1m", "amazon-beauty-2014", "amazon-toys-2014", "online-retail"]
LOGS: tuple[LogName, ...] = get_args(LogName)
Relevant = tuple[Ints, Ints]


@dataclass(frozen=True, slots=True)
class Window:
    """The form of the task ``window`` for a log."""

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
WEEK = 7 * DAY_SECONDS
CUT, VALIDATION_CUT = 0.9, 0.8  # quantiles of all timestamps: on the day of one the week begins
LATE = 0.9  # the same of what training sees: newcomers' next events lie after it
MOST_USERS = 3_000  # that are ranked for, a seeded sample where there are more
REPEATS = ("online-retail",)  # people buy the same thing again, so what they had is not masked


@dataclass(frozen=True, slots=True)
class Task:
    """Whom to rank for."""

    past: Histories
    """Events before the held-out ones, of U users."""
    relevant: Relevant
    """Distinct held-out items: user u's are ``items[offsets[u]:offsets[u + 1]]``."""


@dataclass(frozen=True, slots=True)
class Log:
    """A log, cut."""

    name: LogName
    train: Histories
    """What every contender may learn from."""
    tasks: dict[str, Task]
    """Leave last: ``window``, the last W events of users with enough of them, as a set, then ``next``, the last event
    of each user. By time: ``week`` alone, what users with a past take in the 7 days from the cut on, where
    ``mask_seen`` without what they had. MOST_USERS a task at most."""
    newcomers: Relevant
    """What the list of someone without a history is measured on. Leave last: next items after nine tenths of what
    training sees, since newcomers do not come years before a log ends. By time: what those take whose first event is in
    the week."""
    states_Ih: npt.NDArray[np.float32]
    """Text state of every item."""
    mask_seen: bool
    cut: int | None = None
    """By time: when the week begins, in seconds since 1970; training sees what came before. None: leave last."""

    @property
    def items(self) -> int:
        """I."""
        return len(self.states_Ih)

    @property
    def now(self) -> int:
        """When lists are asked for: at the cut, or right after what training sees."""
        return int(self.train.timestamps.max()) + 1 if self.cut is None else self.cut


def load(name: LogName, shared: Path, *, validation: bool, by_time: bool = False, seed: int = 0) -> Log:
    """Read a log and hold out its end; ``validation`` holds out what comes before that end, for tuning.

    Parameters
    ----------
    name : str
    shared : Path
        Folder with NAME/interactions.parquet and NAME/items.parquet.
    validation : bool
        The test events are dropped first, so no choice that is made on what is left has seen them; by time, the week is
        an earlier one.
    by_time : bool, default=False
        Hold out a week of everybody; else the last events of each user.
    seed : int, default=0
        Of the numbers of the items.
    """
    histories, texts = _read(shared / name, seed)
    states_Ih, mask_seen = _states(name, texts), name not in REPEATS
    if by_time:
        cut = _midnight(histories, VALIDATION_CUT if validation else CUT)
        train, week, newcomers = _week(histories, cut, mask_seen)
        return Log(name, train, {"week": week}, newcomers, states_Ih, mask_seen, cut)
    histories = replace(histories, timestamps=_one_by_one(histories.timestamps, histories.offsets))
    window = WINDOWS[name]
    if validation:
        histories = _train(histories, window)
    train, lengths = _train(histories, window), np.diff(histories.offsets)
    tasks = {
        "window": _last(histories, lengths >= window.least, window.events),
        "next": _last(histories, lengths >= 2, 1),
    }
    late = histories.of_users(_sample(lengths >= 2)).newest(1).since(math.ceil(np.quantile(train.timestamps, LATE)))
    return Log(name, train, tasks, _distinct(late.of_users(np.flatnonzero(_some(late)))), states_Ih, mask_seen)


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
    histories = Histories(user_ids.astype(object), offsets, items, stamps)
    return histories, [texts[row] for row in order]


def _one_by_one(stamps: Ints, offsets: Ints) -> Ints:
    """Timestamps with ties broken by seconds: both tasks of leave last cut inside a tie, so training may do so too."""
    place = np.arange(len(stamps))
    tied = np.zeros(len(stamps), bool)
    tied[1:] = stamps[1:] == stamps[:-1]
    tied[offsets[:-1][np.diff(offsets) > 0]] = False
    first = np.maximum.accumulate(np.where(tied, 0, place))
    return stamps + (place - first)


def _train(histories: Histories, window: Window) -> Histories:
    lengths = np.diff(histories.offsets)
    dropped = np.where(lengths >= window.least, window.events, np.minimum(lengths, 1))
    return histories.up_to(histories.offsets[1:] - dropped)


def _last(histories: Histories, fits: npt.NDArray[np.bool_], events: int) -> Task:
    """The last events of users who fit."""
    chosen = histories.of_users(_sample(fits))
    return Task(chosen.up_to(chosen.offsets[1:] - events), _distinct(chosen.newest(events)))


def _midnight(histories: Histories, quantile: float) -> int:
    return int(np.quantile(histories.timestamps, quantile)) // DAY_SECONDS * DAY_SECONDS


def _week(histories: Histories, cut: int, mask_seen: bool) -> tuple[Histories, Task, Relevant]:
    """What came before the cut, the task of the week from then on, and what newcomers take in it."""
    past, taken = histories.before(cut), histories.since(cut).before(cut + WEEK)
    newcomers = taken.of_users(np.flatnonzero(_some(taken) & ~_some(past)))
    if mask_seen:
        span = int(histories.items.max()) + 1
        taken = taken.keep(~np.isin(taken.users * span + taken.items, past.users * span + past.items))
    users = _sample(_some(taken) & _some(past))
    return past, Task(past.of_users(users), _distinct(taken.of_users(users))), _distinct(newcomers)


def _some(histories: Histories) -> npt.NDArray[np.bool_]:
    """Which users have events."""
    return np.diff(histories.offsets) > 0


def _sample(fits: npt.NDArray[np.bool_]) -> Ints:
    """Numbers of the users who fit, MOST_USERS at most."""
    return np.sort(np.random.default_rng(0).permutation(np.flatnonzero(fits))[:MOST_USERS])


def _distinct(held: Histories) -> Relevant:
    span = int(held.items.max(initial=0)) + 1
    pairs = np.unique(held.users * span + held.items)
    counts = np.bincount(pairs // span, minlength=len(held))
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), pairs % span


def _states(name: LogName, texts: list[str]) -> npt.NDArray[np.float32]:
    kept = state_folder() / "cache" / "benchmarks" / f"{name}-items-minilm.npy"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, embed_texts(texts, "minilm", name))
    return np.asarray(np.load(kept))
