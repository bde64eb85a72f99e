"""What people take again: a user's own items, by how often and how lately they were taken.

K directions in item space lie near what a user takes, and near everything like it: they cannot tell the milk that a
household buys from the one beside it. So an item of the user's history gets a bonus on its merged score. How much it
counts, training chooses on held windows; nothing where nobody takes a thing twice. The form is that of personalised
item frequency (TIFU-KNN, Hu et al., SIGIR 2020), damped by a logarithm, since the score it is added to is one.

So interests need not answer for what is taken again: where habits count, training learns from what is new to a user,
and holds it against what is new to that user (:func:`among_own`).

Shapes: U or B users, h items of all their histories, N history positions, n items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:
    from hymirec_model.retrieval import Merge

Ints = npt.NDArray[np.int64]
Bonus = tuple[Ints, Ints, npt.NDArray[np.float32]]
"""Offsets, items and values: user u's are those of ``offsets[u]`` to ``offsets[u + 1]``, items ascending."""

FADE = 0.2  # the r-th newest event counts r ** -FADE
PACE = 3.0  # how soon one more event stops to matter


def bonus_of(offsets: Ints, items: Ints, habit: float, merge: Merge, scale: float) -> Bonus:
    """What each user's own items get: habit · log(1 + PACE · Σ rank ** -FADE) over the events of an item.

    Parameters
    ----------
    offsets : int array of shape (U + 1,)
    items : int array of shape (h,)
        User u's are ``items[offsets[u]:offsets[u + 1]]``, oldest → newest.
    habit : float
        >= 0, how much it counts.
    merge, scale
        Of the score that it is added to: a log, or for ``merge="max"`` a cosine, which is a log by the scale.

    Returns
    -------
    Bonus
        Of the distinct items of each user.
    """
    n_users, lengths = len(offsets) - 1, np.diff(offsets)
    user = np.repeat(np.arange(n_users), lengths)
    rank = np.repeat(offsets[1:], lengths) - np.arange(offsets[0], offsets[-1])
    span = int(items.max(initial=0)) + 1
    pairs, place = np.unique(user * span + items, return_inverse=True)
    summed = np.bincount(place, rank**-FADE, minlength=len(pairs))
    counts = np.bincount(pairs // span, minlength=n_users)
    strength = habit / scale if merge == "max" else habit
    values = (strength * np.log1p(PACE * summed)).astype(np.float32)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), pairs % span, values


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
