"""A plane through the item space, and what lies on it: items, and some users' histories and interests.

Everything is mapped as a direction, without what all items have in common: that tells no two items apart, and where
most items are never taken it is most of their vectors.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from jobs.platform import explain
from jobs.platform.releases import Release

USERS = 4
ITEMS = 3_000  # at most
CATEGORIES = 6  # that are told apart; the others are one
OTHERS = ""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class UserOnMap:
    """A user's points: those of the history's distinct items (n, 2), and of the interests (K, 2)."""

    user_id: str
    n_events: int
    history: Floats
    interests: Floats


@dataclass(frozen=True, slots=True)
class InterestMap:
    """What a map shows.

    Attributes
    ----------
    items : float64 array of shape (n, 2)
        Items that many users took.
    categories : list of str
        Category of each of them, OTHERS for the smaller ones.
    users : list of UserOnMap
        From few events to many.
    by_category : bool
        Whether the plane is that along which the categories' means differ most; else it is that of the items.
    """

    items: Floats
    categories: list[str]
    users: list[UserOnMap]
    by_category: bool


@dataclass(frozen=True, slots=True)
class Plane:
    """The plane along which vectors differ most (PCA), orthogonal to what all items have in common."""

    common: Floats
    """(d,): unit vector, or zeros."""
    axes: Floats
    """(d, 2): unit vectors, each with its largest component positive; zeros where there is no such direction."""

    @classmethod
    def fit(cls, vectors: npt.NDArray[np.floating], groups: list[str]) -> Plane:
        """Fit to the means of the groups of `vectors` (n, d), or to the vectors themselves if there are too few."""
        common = _unit(vectors.mean(0, dtype=np.float64))
        plane = cls(common, np.zeros((len(common), 2)))
        points, names = plane._directions(vectors), np.array(groups)
        found = sorted(set(groups) - {OTHERS})
        if separable(groups):
            points = np.stack([points[names == name].mean(0) for name in found])
        centred = points - points.mean(0)
        _, directions = np.linalg.eigh(centred.T @ centred)
        best = directions[:, ::-1][:, :2]
        plane.axes[:, : best.shape[1]] = best * np.sign(best[np.abs(best).argmax(0), np.arange(best.shape[1])])
        return plane

    def project(self, vectors: npt.NDArray[np.floating]) -> Floats:
        """Directions of vectors (n, d) as points (n, 2)."""
        points: Floats = self._directions(vectors) @ self.axes
        return points

    def _directions(self, vectors: npt.NDArray[np.floating]) -> Floats:
        wide = vectors.astype(np.float64)
        return _unit(wide - np.outer(wide @ self.common, self.common))


def separable(groups: list[str]) -> bool:
    """Whether there are enough groups for their means to span a plane."""
    return len(set(groups) - {OTHERS}) >= 3


def of_release(release: Release) -> InterestMap:
    """Map a release: the same map of the same release. It reads one row group of users, and the users shown."""
    made = release.recommender
    rows = np.sort(np.argsort(-_times_taken(release, len(made.vectors)), kind="stable")[:ITEMS])
    named = [str(name or OTHERS) for name in release.table("items", ["category"])["category"].take(rows).to_pylist()]
    largest = {name for name, _ in Counter(name for name in named if name != OTHERS).most_common(CATEGORIES)}
    categories = [name if name in largest else OTHERS for name in named]
    plane = Plane.fit(made.vectors[rows], categories)
    user_ids = explain.spread_users(release, USERS)
    users = []
    if user_ids:
        found = made.interests(user_ids)
        offsets, seen = found.seen
        for number, user_id in enumerate(user_ids):
            taken = made.vectors[seen[offsets[number] : offsets[number + 1]]]
            points = plane.project(taken), plane.project(found.vectors[number])
            users.append(UserOnMap(user_id, int(found.n_events[number]), *points))
    return InterestMap(plane.project(made.vectors[rows]), categories, users, separable(categories))


def _times_taken(release: Release, n_items: int) -> npt.NDArray[np.int64]:
    """How many of the users in the first row group took each item: a fair sample, as buckets are drawn by a hash."""
    with release.warehouse.filesystem.open_input_file(
        release.warehouse.storage.path(release.folder, release.files("interests")[0])
    ) as file:
        parquet = pq.ParquetFile(file)
        if not parquet.num_row_groups:
            return np.zeros(n_items, np.int64)
        seen: Any = parquet.read_row_group(0, ["seen"])["seen"].combine_chunks()
    return np.bincount(seen.flatten().to_numpy(), minlength=n_items)


def _unit(vectors: Floats) -> Floats:
    """Vectors of length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Floats = vectors / np.where(lengths > 0, lengths, 1.0)
    return unit
