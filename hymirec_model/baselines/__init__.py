"""Rankings without learning that a model has to beat: popularity, own repeats, co-occurrence.

Shapes: U users, n items.
"""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from hymirec_model.baselines.cooccurrence import CoOccurrence
from hymirec_model.baselines.popularity import Popularity
from hymirec_model.baselines.repeat import OwnRepeats
from hymirec_model.errors import InputError
from hymirec_model.histories import Histories, Ints
from hymirec_model.ranking import top_columns

__all__ = ["Baseline", "CoOccurrence", "OwnRepeats", "Popularity", "rank"]

CELLS = 1 << 22  # scores held at once by `rank`: 32 MiB of float64, a few times over


class Baseline(Protocol):
    """A scorer of all items that is fitted on everybody's past."""

    def fit(self, histories: Histories, n_items: int, now: int) -> Self:
        """Read everybody's events before ``now`` (seconds since 1970)."""
        ...

    def scores(self, histories: Histories) -> npt.NDArray[np.float64]:
        """Score all items for users by their own past: shape (U, n), larger is better."""
        ...


def rank(baseline: Baseline, histories: Histories, n: int, *, mask_seen: bool = False, seed: int = 0) -> Ints:
    """Rank all items for every user, in memory that does not grow with the users.

    Parameters
    ----------
    baseline : Baseline
        Fitted.
    histories : Histories
        The users' past.
    n : int
        Length of the lists, >= 1.
    mask_seen : bool, default=False
        Leave a user's own items out.
    seed : int, default=0
        Seed of the permutation of the items that orders equal scores.

    Returns
    -------
    int64 array of shape (U, n)
        Items, best first; -1 where there are fewer than n.

    Raises
    ------
    InputError
        If n is below 1.
    """
    if n < 1:
        raise InputError(f"n: got {n}, must be >= 1.")
    n_items = baseline.scores(histories.of_users(np.empty(0, np.int64))).shape[1]
    order = np.random.default_rng(seed).permutation(n_items)
    ranked = np.full((len(histories), n), -1, np.int64)
    width, step = min(n, n_items), max(1, CELLS // n_items)
    for start in range(0, len(histories), step):
        part = histories.of_users(np.arange(start, min(start + step, len(histories))))
        scores = baseline.scores(part)
        if mask_seen:
            scores[part.users, part.items] = -np.inf
        places, _ = top_columns(torch.from_numpy(scores[:, order]), width)
        found = places.numpy()
        ranked[start : start + len(part), :width] = np.where(found < 0, -1, order[found])
    return ranked
