"""The interest of a user of whom nothing is known: what everybody takes.

Shapes: I items, d item dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MOST_ITEMS = 20_000  # the most popular ones, which hold nearly all of the log
STEPS, RATE, START = 300, 0.3, 20.0


def popular_direction(vectors_Id: Tensor, counts_I: Tensor) -> Tensor:
    """The direction in which a softmax over the items, of any scale, comes nearest to their shares of the log.

    The mean of all that was taken is not that vector: it lies where most is taken, and finds what is near, popular or
    not.

    Parameters
    ----------
    vectors_Id : Tensor of shape (I, d)
        Unit vectors.
    counts_I : Tensor of shape (I,)
        Events of each item, one or more in all.

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
