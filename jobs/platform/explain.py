"""One user of a release for people: the history, each interest by its nearest titles, what would be
retrieved."""

from __future__ import annotations

import datetime
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from jobs.platform.errors import JobError
from jobs.platform.releases import Release
from jobs.platform.user_histories import UserHistories
from jobs.platform.warehouse import Warehouse

RECENT, NEAREST, RETRIEVED = 15, 5, 20


class Retrieved(NamedTuple):
    """An item that would be retrieved, and why."""

    title: str
    item_id: str
    category: str
    interest: int
    """Number of the interest that is nearest to it, from 1."""
    cosine: float
    """Of the item and that interest."""
    before: int
    """How often the user has taken it already; see :mod:`hymirec_model.habits` for what that does to its score."""


@dataclass(frozen=True, slots=True)
class Explained:
    """One user.

    Attributes
    ----------
    recent : list of (day, title)
        Newest first.
    interests : list of list of (cosine, title)
        See :func:`nearest_titles`.
    retrieved : list of Retrieved
        Best first.
    """

    user_id: str
    n_events: int
    recent: list[tuple[str, str]]
    interests: list[list[tuple[float, str]]]
    retrieved: list[Retrieved]


def explain(wh: Warehouse, release: Release, user_id: str) -> Explained:
    """Explain a user of a release.

    Raises
    ------
    JobError
        If the release has no such user, and the message names some that it has; or if the day's histories are not
        those that the release was made of: their numbers may stand for other items.
    MissingPartition
        If the histories of the release's day are gone.
    """
    recommender = release.recommender
    user = recommender.interests([user_id])
    taken, stamps = _history(wh, release.ds, user_id)
    found, _ = recommender.rank(user, RETRIEVED, exclude_seen=False, diversity=0.0)
    if not np.array_equal(np.unique(taken), user.seen[1]):
        raise JobError(
            f"histories/ds={release.ds}: seen others than those of release {release.id}: the day was run again since; "
            "allowed: the release's own; take a release of this run, or another day's"
        )
    ids, titles = (recommender.names[name].to_pylist() for name in ("item_id", "title"))
    categories = release.table("items", ["category"])["category"].to_pylist()
    before = Counter(taken.tolist())
    cosines = recommender.vectors.astype(np.float32) @ user.vectors[0].T
    nearest, best = cosines.argmax(1), cosines.max(1)
    newest = [(_day(stamp), titles[item]) for item, stamp in zip(taken, stamps, strict=True)][-RECENT:]
    return Explained(
        user_id=user_id,
        n_events=int(user.n_events[0]),
        recent=newest[::-1],
        interests=nearest_titles(cosines, titles),
        retrieved=[
            Retrieved(titles[i], ids[i], categories[i] or "", int(nearest[i]) + 1, float(best[i]), before[i])
            for i in found[0].tolist()
            if i >= 0
        ],
    )


def median_user(release: Release) -> str:
    """The user in the middle when users are ordered by number of events, then by id."""
    return spread_users(release, 1)[0]


def spread_users(release: Release, n: int) -> list[str]:
    """`n` users (or all, if fewer) from few events to many: the middle of each of `n` equal groups of users."""
    table = release.table("interests", ["user_id", "n_events"])
    ordered = table.sort_by([("n_events", "ascending"), ("user_id", "ascending")])["user_id"]
    groups = min(n, len(ordered))
    return [str(ordered[(2 * group + 1) * len(ordered) // (2 * groups)]) for group in range(groups)]


def render(user: Explained) -> RenderableType:
    """An explained user as rich tables."""
    history = _table(f"user {escape(user.user_id)}: the last {len(user.recent)} of {user.n_events:,} events")
    history.add_column("day", no_wrap=True)
    history.add_column("title")
    for day, title in user.recent:
        history.add_row(day, escape(title))
    interests = _table(f"{len(user.interests)} interests, each by the titles that are nearest to it of all (cosine)")
    interests.add_column("interest", justify="right")
    interests.add_column("nearest titles")
    for number, nearest in enumerate(user.interests, 1):
        shown = "\n".join(f"{cosine:.2f}  {escape(title)}" for cosine, title in nearest)
        interests.add_row(str(number), shown, end_section=True)
    retrieved = _table(
        f"what would be retrieved: the first {len(user.retrieved)}, by the nearest interest; before: times taken"
    )
    for name in ("rank", "interest", "before", "title", "category", "item_id"):
        retrieved.add_column(name, justify="right" if name in ("rank", "interest", "before") else "left")
    for rank, item in enumerate(user.retrieved, 1):
        before = str(item.before or "")
        names = (escape(name) for name in (item.title, item.category, item.item_id))
        retrieved.add_row(str(rank), str(item.interest), before, *names)
    return Group(history, interests, retrieved)


def _history(wh: Warehouse, ds: str, user_id: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Items and times of a user, oldest first."""
    table = UserHistories.find(wh, ds).users([user_id], ["item_indices", "timestamps"])
    if not table.num_rows:
        raise JobError(
            f"histories/ds={ds}: seen no row of user {user_id!r}; allowed: every user of the release; run the day again"
        )
    row = table.to_pylist()[0]
    return np.asarray(row["item_indices"], np.int64), np.asarray(row["timestamps"], np.int64)


def nearest_titles(cosines: npt.NDArray[np.floating], titles: list[str]) -> list[list[tuple[float, str]]]:
    """What each interest stands for: the nearest titles among those that no other interest is nearer to.

    Parameters
    ----------
    cosines : array of shape (items, interests)
    titles : list of str
        Many products share one; the nearest product counts.

    Returns
    -------
    list of list of (cosine, title)
        By interest, nearest first; at most NEAREST.
    """
    # By a dictionary: an array of text gives every title the room of the longest.
    coded = pa.array(titles, pa.string()).dictionary_encode()
    names, place = coded.dictionary.to_pylist(), coded.indices.to_numpy()
    best = np.full((len(names), cosines.shape[1]), -np.inf)
    np.maximum.at(best, place, cosines)
    owner = best.argmax(1)
    found = []
    for interest, mine in enumerate(np.flatnonzero(owner == k) for k in range(cosines.shape[1])):
        top = mine[np.argsort(-best[mine, interest], kind="stable")[:NEAREST]]
        found.append([(float(best[title, interest]), names[title]) for title in top])
    return found


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", show_lines=False)


def _day(timestamp: int) -> str:
    return datetime.datetime.fromtimestamp(timestamp, datetime.UTC).strftime("%Y-%m-%d")
