"""Own repeats: what the user bought most often, then what is popular."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt

from hymirec_model.baselines.popularity import Popularity
from hymirec_model.histories import Histories


class OwnRepeats:
    """The user's own counts; of equal counts, and where there are none, the more popular item first.

    Parameters
    ----------
    days : int, default=28
        As in :class:`Popularity`.
    """

    def __init__(self, days: int = 28) -> None:
        self.popularity = Popularity(days)

    def fit(self, histories: Histories, n_items: int, now: int) -> Self:
        """Fit the popularity; see :meth:`Popularity.fit`."""
        self.popularity.fit(histories, n_items, now)
        return self

    def scores(self, histories: Histories) -> npt.NDArray[np.float64]:
        """Return scores of shape (U, n): own count plus a fraction below 1 that grows with popularity."""
        popular = self.popularity.score_
        scores = np.tile(popular / (popular.max(initial=0) + 1), (len(histories), 1))
        np.add.at(scores, (histories.users, histories.items), 1)
        return scores
