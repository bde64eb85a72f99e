"""What people take again: a user's own items, by how often and how lately they were taken.

K directions in item space lie near what a user takes, and near everything like it: they cannot tell the milk that a
household buys from the one beside it. So an item of the user's history gets a bonus on its merged score. The form is
that of personalised item frequency (TIFU-KNN, Hu et al., SIGIR 2020), damped by a logarithm, since the score it is
added to is one. What lies in today's basket, though, is seldom taken twice: it may have its score lowered instead. How
much both count, training chooses on held windows; nothing where nobody takes a thing twice.

So interests need not answer for what is taken again: where habits count, training learns from what is new to a user,
and holds it against what is new to that user (:func:`among_own`).

Shapes: U or B users, h items of all their histories, N history positions, n items.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hymirec_model.histories import DAY_SECONDS, Histories, Ints
from hymirec_model.merging import Merge

Bonus = tuple[Ints, Ints, npt.NDArray[np.float32]]
"""Offsets, items and values: user u's are those of ``offsets[u]`` to ``offsets[u + 1]``, items ascending."""

FADE = 0.2  # the r-th newest event counts r ** -FADE
PACE = 3.0  # how soon one more event stops to matter


class Habits(NamedTuple):
    """How much a user's own items count, both numbers >= 0."""

    strength: float = 0.0
    """Of having been taken before."""
    satiety: float = 0.0
    """Of having been taken on the last day; at 0 that day is like the others."""


NONE = Habits()


def bonus_of(histories: Histories, habits: Habits, merge: Merge, scale: float) -> Bonus:
    """What is added to the score of each user's own items: strength · log(1 + PACE · Σ rank ** -FADE).

    The sum runs over an item's events. With satiety, those of the user's last day (the 24 hours up to the newest event)
    do not count, and their items have it taken off.

    Parameters
    ----------
    histories : Histories
    habits : Habits
    merge, scale
        Of the score that it is added to: a log, or for ``merge="max"`` a cosine, which is a log by the scale.

    Returns
    -------
    Bonus
        Of the distinct items of each user; below 0 where satiety is more than the habit.
    """
    ends_h = np.repeat(histories.offsets[1:], np.diff(histories.offsets))
    weight_h = (ends_h - np.arange(len(ends_h))) ** -FADE
    span = int(histories.items.max(initial=0)) + 1
    pairs, place_h = np.unique(histories.users * span + histories.items, return_inverse=True)
    sated = np.zeros(len(pairs), bool)
    if habits.satiety:
        last_day_h = histories.timestamps[ends_h - 1] - histories.timestamps < DAY_SECONDS
        weight_h[last_day_h] = 0
        sated[place_h[last_day_h]] = True
    summed = np.bincount(place_h, weight_h, minlength=len(pairs))
    values = habits.strength * np.log1p(PACE * summed) - habits.satiety * sated
    counts = np.bincount(pairs // span, minlength=len(histories))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return offsets, pairs % span, (values / (scale if merge == "max" else 1.0)).astype(np.float32)


def among_own(items_BN: Tensor, mask_BN: Tensor, wanted_n: Tensor) -> Tensor:
    """Which items are in whose history.

    Parameters
    ----------
    items_BN : Tensor of shape (B, N), long
    mask_BN : Tensor of shape (B, N), bool
        True where there is an event.
    wanted_n : Tensor of shape (n,), long
        May have an item twice.

    Returns
    -------
    Tensor of shape (B, n), bool
    """
    distinct_m, place_n = torch.unique(wanted_n, return_inverse=True)
    place_BN = torch.searchsorted(distinct_m, items_BN).clamp_max(len(distinct_m) - 1)
    row_BN = torch.arange(len(items_BN), device=items_BN.device)[:, None].expand_as(items_BN)
    hit_BN = mask_BN & (distinct_m[place_BN] == items_BN)
    own_Bm = torch.zeros(len(items_BN), len(distinct_m), dtype=torch.bool, device=items_BN.device)
    own_Bm[row_BN[hit_BN], place_BN[hit_BN]] = True
    return own_Bm[:, place_n]
