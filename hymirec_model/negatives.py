"""Negatives of a sampled softmax: popular items, the hard ones, are drawn often and count less each.

Shapes: I items, B users, W targets, n negatives.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hymirec_model.errors import require
from hymirec_model.histories import Batch

BY_COUNT = 0.5  # share of the draws that goes by the items' counts; the rest is uniform


@dataclass(frozen=True, slots=True)
class Negatives:
    """Items that a batch's targets are compared with."""

    ids: Tensor
    """Item numbers, of shape (n,); an item may come twice."""
    bias: Tensor
    """Added to their scores, of shape (n,): makes up for drawing popular items more often."""
    owner: Tensor | None = None
    """Row of the batch whose target an item is, which must not meet it; -1 for none. Of shape (n,), None = all -1."""

    def to(self, device: torch.device) -> Negatives:
        """Return the negatives on ``device``."""
        owner = None if self.owner is None else self.owner.to(device)
        return Negatives(self.ids.to(device), self.bias.to(device), owner)


class NegativeSampler:
    """Draws negatives among the items with events, half of them uniformly and half by their counts.

    With a bias of -log(n · q) on each score, q an item's probability, the sum over n negatives estimates that over all
    items with events: the loss is that of the full softmax, whatever n, but for the twins that are masked (losses.py).
    A few popular items hold most of its mass, and uniform draws mostly miss them (importance sampling; Bengio and
    Senécal 2008, doi:10.1109/TNN.2007.912312).

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
        self._share, self._items = share, np.flatnonzero(counts)
        self._bounds = np.cumsum(share[self._items])
        self._bias = -np.log(share[self._items]).astype(np.float32)
        self.random = np.random.default_rng(seed)

    def draw(self, count: int) -> Negatives:
        """Draw ``count`` negatives."""
        places = np.searchsorted(self._bounds, self.random.random(count) * self._bounds[-1], side="right")
        bias = self._bias[places] - np.float32(np.log(count))
        return Negatives(torch.from_numpy(self._items[places]), torch.from_numpy(bias))

    def draw_beside(self, batch: Batch, others: npt.NDArray[np.float64], count: int) -> Negatives:
        """Draw ``count`` negatives, and take the batch's targets as negatives of the other users.

        An item counts by how often it is to be expected among both together, so that their sum still estimates that
        over all items (balance heuristic; Veach and Guibas 1995, doi:10.1145/218380.218498).

        Parameters
        ----------
        batch : Batch
        others : float array of shape (I,)
            How often an item is to be expected among the targets that a user meets: those of the other B - 1.
        count : int
        """
        drawn, mask_BW = self.draw(count).ids, batch.target_mask_BW
        ids = torch.cat([drawn, batch.targets_BW[mask_BW]])
        rows_BW = torch.arange(len(mask_BW))[:, None].expand(mask_BW.shape)
        owner = torch.cat([torch.full_like(drawn, -1), rows_BW[mask_BW]])
        expected = count * self._share + others
        return Negatives(ids, torch.from_numpy(-np.log(expected[ids.numpy()])).float(), owner)
