"""The interest of a user of whom nothing is known: what everybody takes.

Shapes: I items, d item dimensions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from hymirec_model.histories import DAY_SECONDS, Histories, Ints

HALF_LIVES = (np.inf, 112.0, 28.0)  # days
LATEST, CLEARLY, LIST = 0.1, 1.05, 50
MOST_ITEMS = 20_000  # the most popular ones, which hold nearly all of the log
STEPS, RATE, START = 300, 0.3, 20.0


def lately_popular(histories: Histories, n_items: int) -> Tensor:
    """What people take now: events of each item, where old ones count less if that has told more of late.

    An event's weight halves every 28 or 112 days, or never: as finds more of the last tenth of all events, from those
    before, in a list of 50. A shorter half-life must find a twentieth more than a longer one.

    Parameters
    ----------
    histories : Histories
        One event at least.
    n_items : int
        I.

    Returns
    -------
    Tensor of shape (I,), float64
    """
    items, stamps = histories.items, histories.timestamps
    earlier = stamps < np.quantile(stamps, 1 - LATEST)
    chosen, most = np.inf, 0.0
    for half_life in HALF_LIVES if earlier.any() else ():
        listed = np.argsort(-_weighed(items[earlier], stamps[earlier], half_life, n_items), kind="stable")[:LIST]
        found = float(np.isin(items[~earlier], listed).mean())
        if found > CLEARLY * most:
            chosen, most = half_life, found
    return torch.from_numpy(_weighed(items, stamps, chosen, n_items))


def _weighed(items: Ints, stamps: Ints, half_life: float, n_items: int) -> npt.NDArray[np.float64]:
    age = (stamps.max() - stamps) / DAY_SECONDS
    counts: npt.NDArray[np.float64] = np.bincount(items, 0.5 ** (age / half_life), n_items).astype(np.float64)
    return counts


def popular_direction(vectors_Id: Tensor, counts_I: Tensor) -> Tensor:
    """The direction in which a softmax over the items, of any scale, comes nearest to their shares of the log.

    The mean of all that was taken is not that vector: it lies where most is taken, and finds what is near, popular or
    not.

    Parameters
    ----------
    vectors_Id : Tensor of shape (I, d)
        Unit vectors.
    counts_I : Tensor of shape (I,)
        Events of each item, weighed or not, more than none in all.

    Returns
    -------
    Tensor of shape (d,), float32
        Of length 1.
    """
    counts_I, chosen = torch.sort(counts_I.double(), descending=True, stable=True)
    vectors_Id = vectors_Id[chosen[:MOST_ITEMS]].float()
    share_I = (counts_I[:MOST_ITEMS] / counts_I[:MOST_ITEMS].sum()).float()
    wanted_d = share_I @ vectors_Id
    with torch.enable_grad():
        direction_d = (START * F.normalize(wanted_d, dim=0)).requires_grad_()
        optimizer = torch.optim.Adam([direction_d], lr=RATE)
        for _ in range(STEPS):
            loss = torch.logsumexp(vectors_Id @ direction_d, 0) - wanted_d @ direction_d
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return F.normalize(direction_d.detach(), dim=0)
