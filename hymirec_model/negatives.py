"""Negatives of a sampled softmax: popular items, the hard ones, are drawn often and count less each.

Shapes: I items, n negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hymirec_model.errors import require

BY_COUNT = 0.5  # share of the draws that goes by the items' counts; the rest is uniform


@dataclass(frozen=True, slots=True)
class Negatives:
    """Items that a batch's targets are compared with."""

    ids: Tensor
    """Item numbers, of shape (n,); an item may come twice."""
    bias: Tensor
    """Added to their scores, of shape (n,): makes up for drawing popular items more often."""

    def to(self, device: torch.device) -> Negatives:
        """Return the negatives on ``device``."""
        return Negatives(self.ids.to(device), self.bias.to(device))


class NegativeSampler:
    """Draws negatives among the items with events, half of them uniformly and half by their counts.

    With a bias of -log(n · q) on each score, q an item's probability, the sum over n negatives estimates that over all
    items with events: the loss is that of the full softmax, whatever n. A few popular items hold most of its mass, and
    uniform draws mostly miss them (importance sampling; Bengio and Senécal 2008, doi:10.1109/TNN.2007.912312).

    Parameters
    ----------
    counts : integer array of shape (I,)
        Events of every item in what training may see.
    seed : int

    Attributes
    ----------
    random : numpy.random.Generator
        All that changes from draw to draw.

    Raises
    ------
    InputError
        If no item has an event.
    """

    def __init__(self, counts: npt.NDArray[np.integer], seed: int) -> None:
        known = int((counts > 0).sum())
        require(known > 0, "negatives: seen no item with an event; allowed: 1 or more")
        share = np.where(counts > 0, (1 - BY_COUNT) / known + BY_COUNT * counts / counts.sum(), 0)
        self._items = np.flatnonzero(counts)
        self._bounds = np.cumsum(share[self._items])
        self._bias = -np.log(share[self._items]).astype(np.float32)
        self.random = np.random.default_rng(seed)

    def draw(self, count: int) -> Negatives:
        """Draw ``count`` negatives."""
        places = np.searchsorted(self._bounds, self.random.random(count) * self._bounds[-1], side="right")
        bias = self._bias[places] - np.float32(np.log(count))
        return Negatives(torch.from_numpy(self._items[places]), torch.from_numpy(bias))
