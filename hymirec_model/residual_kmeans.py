"""k-means by cosine over the residuals of a residual codebook.

Shapes: n vectors, m residuals, l layers before this one, k entries a layer, d dimensions.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from hymirec_model.beam_search import CELLS


class Residuals:
    """What hypotheses leave of their vectors, as sums of few terms: the points of a layer's k-means.

    Many residuals share few vectors and entries, so products with them are made once and added up: a centre costs a
    residual l + 1 additions instead of d multiplications.

    Parameters
    ----------
    vectors : Tensor of shape (n, d)
    row_m : Tensor of shape (m,)
        Vector of each residual.
    code_ml : Tensor of shape (m, l)
        Its entries in the first l layers.
    table_lkd : Tensor of shape (l, k, d)

    Attributes
    ----------
    rows : Tensor of shape (m, d)
        The residuals.
    """

    def __init__(self, vectors: Tensor, row_m: Tensor, code_ml: Tensor, table_lkd: Tensor) -> None:
        n_layers, k, _ = table_lkd.shape
        self._basis = torch.cat([vectors, -table_lkd.flatten(0, 1)])
        self._terms = torch.cat([row_m[:, None], len(vectors) + torch.arange(n_layers) * k + code_ml], 1)
        self.rows = embedding_bag(self._terms, self._basis, mode="sum")

    @classmethod
    def of(cls, vectors: Tensor) -> Self:
        """The vectors as they are, before any layer."""
        none = torch.zeros(len(vectors), 0, dtype=torch.long)
        return cls(vectors, torch.arange(len(vectors)), none, vectors.new_zeros(0, 1, vectors.shape[1]))

    def nearest(self, directions_kd: Tensor, *, balanced: bool = False) -> tuple[Tensor, Tensor]:
        """Length along the unit direction nearest to each residual, and which it is, both of shape (m,).

        `balanced` gives no direction more than ceil(m / k) residuals (see `balanced_labels`).
        """
        products = self._basis @ directions_kd.T
        if balanced:
            along_mk = embedding_bag(self._terms, products, mode="sum")
            label_m = balanced_labels(along_mk)
            return along_mk.gather(1, label_m[:, None])[:, 0], label_m
        step = CELLS // len(directions_kd)
        starts = range(0, len(self.rows), step)
        parts = [embedding_bag(self._terms[i : i + step], products, mode="sum").max(1) for i in starts]
        return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])


def cosine_kmeans(
    points: Residuals, k: int, iterations: int, generator: torch.Generator, *, balanced: bool = False
) -> Tensor:
    """k-means that assigns by cosine and keeps the plain mean of each cluster, length included.

    Parameters
    ----------
    points : Residuals
        m >= k of them.
    k, iterations : int
    generator : torch.Generator
        Chooses the first centres among the points.
    balanced : bool, default=False
        Give no cluster more than ceil(m / k) points.

    Returns
    -------
    Tensor of shape (k, d)
    """
    rows = points.rows
    centres_kd = rows[torch.randperm(len(rows), generator=generator)[:k]].clone()
    for _ in range(iterations):
        along_m, label_m = points.nearest(normalize(centres_kd, dim=-1), balanced=balanced)
        count_k = torch.bincount(label_m, minlength=k)
        sum_kd = torch.zeros_like(centres_kd).index_add_(0, label_m, rows)
        centres_kd = sum_kd / count_k.clamp_min(1)[:, None]
        empty = (count_k == 0).nonzero()[:, 0]
        if len(empty):
            off_axis_m = rows.square().sum(1) - along_m.square()
            centres_kd[empty] = rows[off_axis_m.topk(len(empty)).indices]
    return centres_kd


def balanced_labels(similarity_nk: Tensor) -> Tensor:
    """Every point takes the best cluster that has room; a full cluster keeps the points most similar to
    it."""
    n, k = similarity_nk.shape
    room_k = torch.full((k,), -(-n // k))
    label_n = torch.full((n,), -1)
    open_nk = similarity_nk.clone()
    waiting = torch.arange(n)
    while len(waiting):
        value, wish = open_nk[waiting].max(1)
        # Best first within each wish: a point's place in its queue decides whether there is room for it.
        queue = value.argsort(descending=True, stable=True)
        queue = queue[wish[queue].argsort(stable=True)]
        asked_k = torch.bincount(wish, minlength=k)
        place = torch.arange(len(queue)) - (asked_k.cumsum(0) - asked_k)[wish[queue]]
        accepted = queue[place < room_k[wish[queue]]]
        label_n[waiting[accepted]] = wish[accepted]
        room_k -= torch.bincount(wish[accepted], minlength=k)
        open_nk[:, room_k == 0] = -torch.inf
        waiting = waiting[label_n[waiting] < 0]
    return label_n
