"""What is popular now, and was not on average: a prior for every item, the same for all users.

A model learns from a whole log how often each item is taken, p_ever. What is taken this week, p_now, can be another
matter: toys, news and films come and go in months. Scores are logs of probabilities, so what they lack is
log(p_now / p_ever): the correction of a classifier to new priors (Saerens, Latinne and Decaestecker 2002,
doi:10.1162/089976602753284446). Over how many days "now" goes, and how much of the correction counts, training chooses
on held windows, each with what was popular at its own time; nothing where the log does not change.

In an index the correction is a coordinate of the item vectors, and another one makes their length 1 again (Bachrach et
al. 2014, doi:10.1145/2645710.2645741): so the nearest items are those of the highest corrected score.

Shapes: U users or windows, I items, d dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hymirec_model.histories import DAY_SECONDS, Histories, Ints
from hymirec_model.merging import Merge

Floats = npt.NDArray[np.float32]
PSEUDO_EVENTS = 100.0  # beside those of the recent days, shared out as p_ever says: nothing is shifted without end
SIMD = 16  # faiss reads vectors of whole multiples of it six times as fast as others


class Shift(NamedTuple):
    """Which correction."""

    days: float = 0.0
    """Length of the recent past."""
    strength: float = 0.0
    """Share of the correction that counts, 0 to 1."""


NO_SHIFT = Shift()
SHIFTS = (NO_SHIFT, *(Shift(days, strength) for days in (7.0, 14.0, 28.0, 91.0) for strength in (0.25, 0.5, 0.75, 1.0)))


class PopularityShift:
    """Popularity of the items of a log, at any moment of it and over all of it.

    Parameters
    ----------
    histories : Histories
        Everybody's events.
    n_items : int
        I.
    """

    def __init__(self, histories: Histories, n_items: int) -> None:
        order = np.argsort(histories.timestamps, kind="stable")
        self._timestamps, self._items, self.n_items = histories.timestamps[order], histories.items[order], n_items
        self._ever = np.bincount(self._items, minlength=n_items)
        known, places = np.unique(self._items, return_index=True)
        self.first = np.full(n_items, np.iinfo(np.int64).max)
        """When each item was first taken, of shape (I,); the last of all moments for one that never was."""
        self.first[known] = self._timestamps[places]

    def at(self, moments: Ints, shift: Shift, items: Ints | None = None) -> Floats:
        """What is added to the logs of the items' probabilities at each moment, by events before it alone.

        Parameters
        ----------
        moments : int array of shape (U,)
            Seconds since 1970, UTC.
        shift : Shift
        items : int array of shape (n,), optional
            Those that are wanted; by default all.

        Returns
        -------
        float32 array of shape (U, n)
            0 for an item that nobody has ever taken: of that one, nothing is known.
        """
        ever = self._ever / max(1, len(self._items))
        wanted = slice(None) if items is None else items
        found = np.zeros((len(moments), len(ever[wanted])), np.float32)
        if not shift.strength:
            return found
        begin, end = (np.searchsorted(self._timestamps, moments - int(past)) for past in (shift.days * DAY_SECONDS, 0))
        for row, (first, last) in enumerate(zip(begin, end, strict=True)):
            recent = np.bincount(self._items[first:last], minlength=self.n_items)
            now = (recent + PSEUDO_EVENTS * ever) / (last - first + PSEUDO_EVENTS)
            ratio = np.divide(now, ever, out=np.ones(self.n_items), where=ever > 0)
            found[row] = shift.strength * np.log(ratio[wanted])
        return found

    def of_items(self, now: int, shift: Shift, merge: Merge, scale: float) -> Floats:
        """What is added to the merged score of each item at a moment, of shape (I,).

        A score is a log, or for ``merge="max"`` a cosine, which is a log by the scale.
        """
        return np.asarray(self.at(np.array([now]), shift)[0] / (scale if merge == "max" else 1.0), np.float32)


def shifted_dim(dim: int) -> int:
    """Length of an indexed vector: d, the shift, what makes the length 1, and zeros up to a multiple of SIMD."""
    return -(-(dim + 2) // SIMD) * SIMD


def shifted_items(vectors: npt.NDArray[np.floating], shift_I: Floats, longest: float) -> Floats:
    """Unit vectors of shape (I, shifted_dim(d)) whose products with :func:`shifted_queries` rank by cosine + shift.

    Parameters
    ----------
    vectors : array of shape (I, d)
        Unit vectors.
    shift_I : float32 array of shape (I,)
        In units of cosines: what is added to a score, by the scale where that is a log.
    longest : float
        Largest absolute value of the shifts of all items, of which these may be some.
    """
    count, dim = vectors.shape
    made = np.zeros((count, shifted_dim(dim)), np.float32)
    made[:, :dim], made[:, dim] = vectors, shift_I
    made[:, dim + 1] = np.sqrt(np.maximum(longest**2 - shift_I**2, 0))
    return np.asarray(made / np.hypot(1, longest), np.float32)


def shifted_queries(interests: npt.NDArray[np.floating]) -> Floats:
    """Unit vectors of shape (…, shifted_dim(d)) of interests of shape (…, d)."""
    *shape, dim = interests.shape
    made = np.zeros((*shape, shifted_dim(dim)), np.float32)
    made[..., :dim], made[..., dim] = interests, 1
    return np.asarray(made / np.sqrt(2), np.float32)
