"""Co-occurrence: items that share baskets with the user's latest items."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from hymirec_model.baselines.popularity import DAY
from hymirec_model.histories import Histories


class CoOccurrence:
    """Cosine of two items' baskets, summed over the user's latest events.

    A basket is what one user has on one day (UTC). An item's cosine with itself, 1, counts as well: people
    buy again what they bought. On groceries this was the strongest of the forms tried (recall@50 .241).

    Parameters
    ----------
    events : int, default=100
        Latest events of a user that count, each as often as it occurs.

    Attributes
    ----------
    cosine_ : scipy.sparse.csr_matrix of shape (n, n)
    """

    cosine_: sp.csr_matrix

    def __init__(self, events: int = 100) -> None:
        self.events = events

    def fit(self, histories: Histories, n_items: int, now: int) -> Self:
        """Count common baskets.

        Parameters
        ----------
        histories : Histories
            Everybody's events before ``now``.
        n_items : int
        now : int
            Not used: all baskets count alike.
        """
        days = histories.timestamps // DAY
        first = int(days.min(initial=0))
        keys = histories.users * (int(days.max(initial=0)) - first + 1) + (days - first)
        _, baskets = np.unique(keys, return_inverse=True)
        shape = (int(baskets.max(initial=-1)) + 1, n_items)
        held = sp.csr_matrix((np.ones(len(baskets), np.float32), (baskets, histories.items)), shape)
        held.data[:] = 1  # an item bought twice on a day is in one basket
        sizes = np.bincount(held.indices, minlength=n_items)
        unit = held @ sp.diags((1 / np.sqrt(np.maximum(sizes, 1))).astype(np.float32))
        self.cosine_ = (unit.T @ unit).tocsr()
        return self

    def scores(self, histories: Histories) -> npt.NDArray[np.float64]:
        """Return scores of shape (U, n)."""
        ends = histories.offsets[1:]
        starts = np.maximum(histories.offsets[:-1], ends - self.events)
        users = histories.users
        latest = np.arange(len(histories.items)) >= starts[users]
        ones = np.ones(int(latest.sum()), np.float64)
        shape = (len(histories), self.cosine_.shape[0])
        counts = sp.csr_matrix((ones, (users[latest], histories.items[latest])), shape)
        scores: npt.NDArray[np.float64] = (counts @ self.cosine_).toarray()
        return scores
