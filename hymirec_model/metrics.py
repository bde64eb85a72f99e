"""Ranking metrics, one figure a user, and bootstrap intervals over users.

Ranked lists are integer arrays (users, list length), best first; -1 marks an unused place. What was relevant
is ragged: `relevant = (offsets, items)`, user u's items being `items[offsets[u]:offsets[u + 1]]`; repeated
items count once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hymirec_model.errors import InputError

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]
Relevant = tuple[Ints, Ints]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over users and its percentile bootstrap interval."""

    mean: float
    low: float
    high: float


def recall_at(ranked: Ints, relevant: Relevant, k: int) -> Floats:
    """Share of a user's relevant distinct items found among the first k of the list.

    Parameters
    ----------
    ranked : int array of shape (users, >= k)
        Items, best first, each at most once a list.
    relevant : (offsets, items)
        Ragged relevant items, at least one a user.
    k : int
        Cut, >= 1.

    Returns
    -------
    float64 array of shape (users,)

    Raises
    ------
    InputError
        If shapes disagree, a list repeats an item, or a user has no relevant item.
    """
    hits, sizes = _hits(ranked, relevant, k)
    recall: Floats = hits.sum(1) / sizes
    return recall


def ndcg_at(ranked: Ints, relevant: Relevant, k: int) -> Floats:
    """Normalised discounted cumulative gain at k with binary gains.

    The ideal list holds min(k, number of relevant distinct items) hits. Parameters, return and errors as in
    `recall_at`.
    """
    hits, sizes = _hits(ranked, relevant, k)
    discounts = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.cumsum(discounts)[np.minimum(sizes, k) - 1]
    ndcg: Floats = (hits @ discounts) / ideal
    return ndcg


def coverage(ranked: Ints, n_items: int, k: int) -> float:
    """Share of a catalogue of `n_items` that stands in the first k of at least one list."""
    _check_ranked(ranked, k)
    if n_items < 1:
        raise InputError(f"n_items: got {n_items}, must be >= 1.")
    shown = np.unique(ranked[:, :k])
    shown = shown[shown >= 0]
    if len(shown) and shown[-1] >= n_items:
        raise InputError(f"ranked: holds item {shown[-1]}, but the catalogue has {n_items} items (0..{n_items - 1}).")
    return len(shown) / n_items


def bootstrap(values: Floats, n_resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Interval:
    """Mean over users with its percentile bootstrap interval.

    Parameters
    ----------
    values : float array of shape (users,)
        One finite figure a user.
    n_resamples : int, default=1000
    level : float, default=0.95
        Share of the resampled means inside the interval, in (0, 1).
    seed : int, default=0
        The same seed and number of users draw the same users, so intervals of several metrics are comparable.

    Returns
    -------
    Interval
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) == 0 or not np.isfinite(values).all():
        raise InputError(f"values: got shape {values.shape}, expected one finite figure a user and at least one user.")
    if n_resamples < 1 or not 0 < level < 1:
        raise InputError(f"got n_resamples={n_resamples}, level={level}; allowed: >= 1 and 0 < level < 1.")
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(n_resamples)]
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(float(values.mean()), float(low), float(high))


def paired_bootstrap(
    values: Floats, baseline: Floats, n_resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> Interval:
    """Interval of the mean difference `values - baseline` over the same users (see `bootstrap`).

    The difference is clear at this level where the interval leaves zero out.
    """
    values, baseline = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    if values.shape != baseline.shape:
        raise InputError(f"got {values.shape} and {baseline.shape}: a paired comparison needs the same users in both.")
    return bootstrap(values - baseline, n_resamples, level, seed)


def _hits(ranked: Ints, relevant: Relevant, k: int) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Which of the first k places are relevant (users, k), and the number of distinct relevant items
    (users,)."""
    _check_ranked(ranked, k)
    offsets, items = np.asarray(relevant[0], np.int64), np.asarray(relevant[1], np.int64)
    n_users = len(ranked)
    if len(offsets) != n_users + 1 or offsets[0] != 0 or offsets[-1] != len(items) or (np.diff(offsets) < 0).any():
        raise InputError(
            f"relevant: got {len(offsets)} offsets over {len(items)} items for {n_users} lists, "
            f"expected {n_users + 1} ascending offsets from 0 to {len(items)}."
        )
    if len(items) and items.min() < 0:
        raise InputError(f"relevant: holds item {items.min()}, items are numbered from 0.")

    top = np.ascontiguousarray(ranked[:, :k], dtype=np.int64)
    span = max(int(top.max(initial=0)), int(items.max(initial=0))) + 1
    users = np.repeat(np.arange(n_users), np.diff(offsets))
    pairs = np.unique(users * span + items)
    sizes = np.bincount(pairs // span, minlength=n_users)
    if n_users and sizes.min() == 0:
        raise InputError(
            f"relevant: {int((sizes == 0).sum())} users have no relevant item (the first is row "
            f"{int(sizes.argmin())}); leave them out, the metric is not defined for them."
        )
    keys = np.arange(n_users)[:, None] * span + top
    place = np.searchsorted(pairs, keys).clip(max=max(len(pairs) - 1, 0))
    hits = (pairs[place] == keys) & (top >= 0) if len(pairs) else np.zeros(top.shape, bool)
    return hits, sizes


def _check_ranked(ranked: Ints, k: int) -> None:
    if ranked.ndim != 2 or not np.issubdtype(ranked.dtype, np.integer):
        raise InputError(f"ranked: got shape {ranked.shape} {ranked.dtype}, expected integers (users, list length).")
    if not 1 <= k <= ranked.shape[1]:
        raise InputError(f"k: got {k}, allowed 1 to {ranked.shape[1]} (the length of the lists).")
    ordered = np.sort(ranked[:, :k], axis=1)
    repeated = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)).any(1)
    if repeated.any():
        raise InputError(f"ranked: list {int(repeated.argmax())} repeats an item; a list names each item at most once.")
