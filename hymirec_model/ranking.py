"""The n best columns of a score matrix, with a defined order among equal scores."""

from __future__ import annotations

import torch
from torch import Tensor


def top_columns(score_Un: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Columns of the n largest scores of every row; of equal scores the leftmost come first.

    torch.topk alone may pick any of the columns that tie for the last place.

    Parameters
    ----------
    score_Un : Tensor of shape (U, columns)
        Without NaN.
    n : int
        1 to the number of columns.

    Returns
    -------
    columns : Tensor of shape (U, n), int64
        Best first; -1 where the score is -inf.
    scores : Tensor of shape (U, n)
    """
    columns = score_Un.shape[1]
    best_Um, place_Um = score_Un.topk(min(n + 1, columns), dim=1)
    place_Un = place_Um[:, :n].sort(dim=1).values
    if columns > n:
        tied_rows = (best_Um[:, n] == best_Um[:, n - 1]).nonzero()[:, 0]
        if len(tied_rows):  # rare: the other rows need no further pass over all columns
            place_Un[tied_rows] = _leftmost(score_Un[tied_rows], best_Um[tied_rows, n, None], n)
    best_Un, rank_Un = score_Un.gather(1, place_Un).sort(dim=1, descending=True, stable=True)
    return place_Un.gather(1, rank_Un).masked_fill(best_Un == -torch.inf, -1), best_Un


def _leftmost(score_Un: Tensor, last_U1: Tensor, n: int) -> Tensor:
    """Ascending columns of the n best, the leftmost of those that equal the last one's score."""
    above_Un, tied_Un = score_Un > last_U1, score_Un == last_U1
    left_U1 = n - above_Un.sum(1, keepdim=True)
    taken_Un = above_Un | (tied_Un & (tied_Un.cumsum(1, dtype=torch.int32) <= left_U1))
    return taken_Un.nonzero()[:, 1].reshape(-1, n)
