"""The stream of windows that training reads: histories cut at a moment, with the events from there on as targets.

Shapes: I items, B users of a batch, W targets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from hymirec_model.errors import InputError, require
from hymirec_model.histories import DAY_SECONDS, Batch, Histories, Ints, window_batch


class WindowSampler:
    """Endless stream of training batches: a random user, a random moment, the past as input, the next W as targets.

    A cut never falls between events of one timestamp, so nothing that happened together is both input and target.
    Users are drawn evenly, then one of their ``recent`` moments evenly. With a half-life a moment counts less the older
    it is, and a user is drawn as often as the newest moment counts.

    Parameters
    ----------
    histories : Histories
        Only what training may see: cut it with :meth:`Histories.before` first.
    batch_users, history, window : int
    seed : int
    held : int, default=0
        Most users whose last window is left out of the stream, with everything after it: see :meth:`held_windows`.
    recent : float, default=1.0
        Share of a user's moments, the newest ones, that are drawn; at least one.
    half_life_days : float, default=0.0
        A moment so many days before the newest of all counts half, one twice as old a quarter; 0: all count alike.
    shares, share : int, default=1 and 0
        Into how many parts a batch is cut, and which of them the stream gives. All parts together are the batch that
        one sampler would give.

    Raises
    ------
    InputError
        If no user has events at two different moments, or a batch has fewer users than parts.
    """

    def __init__(
        self,
        histories: Histories,
        *,
        batch_users: int,
        history: int,
        window: int,
        seed: int,
        held: int = 0,
        recent: float = 1.0,
        half_life_days: float = 0.0,
        shares: int = 1,
        share: int = 0,
    ) -> None:
        require(
            batch_users >= shares,
            f"batch_users: seen {batch_users} for {shares} processes; allowed: at least one user for each",
        )
        self._part = np.array_split(np.arange(batch_users), shares)[share]
        self.histories, self.history, self.window, self.batch_users = histories, history, window, batch_users
        self.random = np.random.default_rng(seed)  # all that changes from batch to batch
        self._cuts = _moments(histories)
        owners = histories.users[self._cuts]
        self._held = _last_windows(histories, self._cuts, window, held)
        if held:  # the window's whole length stays unseen
            limit = np.full(len(histories), np.iinfo(np.int64).max)
            limit[self._held[0]] = self._held[1]
            allowed = self._cuts + window <= limit[owners]
            self._cuts, owners = self._cuts[allowed], owners[allowed]
        per_user = np.bincount(owners, minlength=len(histories))
        self._ends = np.cumsum(per_user)
        self._starts = self._ends - np.maximum(np.ceil(recent * per_user).astype(np.int64), per_user > 0)
        self._users = np.flatnonzero(per_user)
        if not len(self._users):
            raise InputError(
                f"histories: seen {len(histories)} users, none with events at two different moments before the cut; "
                "training needs at least one. Import more days, or choose a later ds"
            )
        self._weights, self._bounds = np.ones(len(self._cuts)), None
        if half_life_days:
            stamps = histories.timestamps[self._cuts]
            self._weights = np.exp2((stamps - stamps.max()) / (half_life_days * DAY_SECONDS))
            bounds = np.cumsum(self._weights[self._ends[self._users] - 1])
            self._bounds = bounds / bounds[-1]
        self._mass = np.append(0, np.cumsum(self._weights))

    def __iter__(self) -> Iterator[Batch]:
        while True:
            users = self._draw_users()
            picks = self._pick(self._starts[users], self._ends[users])
            yield self._batch(users[self._part], self._cuts[picks[self._part]])

    def _draw_users(self) -> Ints:
        if self._bounds is None:
            return self.random.choice(self._users, self.batch_users)
        return self._users[np.searchsorted(self._bounds, self.random.random(self.batch_users), side="right")]

    def _pick(self, starts: Ints, ends: Ints) -> Ints:
        """One of the moments ``starts`` to ``ends - 1`` for each user, as often as it counts."""
        if self._bounds is None:
            return np.asarray(self.random.integers(starts, ends))
        begin, end = self._mass[starts], self._mass[ends]
        places = np.searchsorted(self._mass, begin + self.random.random(len(starts)) * (end - begin), side="right")
        return np.asarray(np.clip(places - 1, starts, ends - 1))  # sums of weights are rounded

    def expected_targets(self, items: int) -> npt.NDArray[np.float64]:
        """How often each item, of shape (items,), is to be expected among the targets of a user who is drawn."""
        log, events = self.histories, len(self.histories.items)
        owners = log.users[self._cuts]
        drawn = np.where(np.arange(len(owners)) >= self._starts[owners], self._weights, 0)
        of_user = np.zeros(len(log))
        of_user[self._users] = 1 / len(self._users) if self._bounds is None else np.diff(self._bounds, prepend=0)
        total = np.bincount(owners, drawn, len(log))[owners]
        chance = of_user[owners] * np.divide(drawn, total, out=np.zeros_like(drawn), where=total > 0)
        stops = np.minimum(self._cuts + self.window, log.offsets[owners + 1])
        begun, over = (np.bincount(places, chance, events + 1) for places in (self._cuts, stops))
        return np.asarray(np.bincount(log.items, (begun - over).cumsum()[:-1].clip(0), items), np.float64)

    def held_windows(self) -> list[Batch]:
        """Batches of the windows that the stream leaves out, for validation."""
        users, cuts = self._held
        parts = np.array_split(np.arange(len(users)), max(1, -(-len(users) // self.batch_users)))
        return [self._batch(users[part], cuts[part]) for part in parts if len(part)]

    def held_moments(self, soon: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """When each of these windows begins, in seconds since 1970, and which of its targets come within ``soon``
        seconds, of shape (windows, W)."""
        users, cuts = self._held
        places = cuts[:, None] + np.arange(self.window)
        inside = places < self.histories.offsets[users + 1][:, None]
        stamps = self.histories.timestamps
        begins = stamps[cuts]
        return begins, inside & (stamps[np.minimum(places, len(stamps) - 1)] < begins[:, None] + soon)

    def held_pasts(self) -> Histories:
        """What came before each of these windows, in their order."""
        users, cuts = self._held
        return _cut(self.histories, users, cuts).of_users(users)

    def _batch(self, users: Ints, cuts: Ints) -> Batch:
        # At serving time a request comes when the person comes back, so ages count from the first target.
        now = self.histories.timestamps[cuts]
        return window_batch(self.histories, users, cuts, now, self.history, self.window)


def without_held_windows(histories: Histories, window: int, held: int) -> Histories:
    """The histories without what a :class:`WindowSampler` of these settings holds back, and without what comes after.

    Whatever learns from more than that has seen what it is then measured on.
    """
    return _cut(histories, *_last_windows(histories, _moments(histories), window, held))


def _cut(histories: Histories, users: Ints, cuts: Ints) -> Histories:
    ends = histories.offsets[1:].copy()
    ends[users] = cuts
    return histories.up_to(ends)


def _moments(histories: Histories) -> Ints:
    """Places in ``histories.items`` where a user's next moment begins; the first one has no past and is left out."""
    stamps, offsets, owners = histories.timestamps, histories.offsets, histories.users
    fresh = np.ones(len(stamps), bool)
    fresh[1:] = (stamps[1:] != stamps[:-1]) | (owners[1:] != owners[:-1])
    fresh[offsets[:-1][np.diff(offsets) > 0]] = False
    return np.flatnonzero(fresh)


def _last_windows(histories: Histories, cuts: Ints, window: int, most: int) -> tuple[Ints, Ints]:
    """Up to ``most`` users with two full windows, one behind the other, and the cut of the last one of each."""
    owners = histories.users[cuts]
    per_user = np.bincount(owners, minlength=len(histories))
    first = np.cumsum(per_user) - per_user
    users = np.flatnonzero(per_user >= 2)
    best = np.full(len(histories), -1, np.int64)
    limit = np.zeros(len(histories), np.int64)
    limit[users] = histories.offsets[users + 1] - window
    fits = cuts <= limit[owners]
    np.maximum.at(best, owners[fits], cuts[fits])
    # A user whose only full window were held back would leave nothing to train on.
    users = users[best[users] >= cuts[first[users]] + window]
    # By their ids, so that they are the same ones on another day: stage 1 may be some days older than stage 2.
    ranks = [hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in histories.user_ids[users]]
    users = users[np.argsort(np.array(ranks, "S8"), kind="stable")[:most]]
    return users, best[users]
