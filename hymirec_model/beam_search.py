"""Beam search for the codes whose sum points most nearly where a vector points.

Shapes: n vectors, B beam width, b hypotheses alive (b <= B), L layers, k entries a layer, d dimensions.

A hypothesis is a choice of one entry in each of the first layers. Its sum s is never formed: the cosine of a
vector x with s + c needs only x.s, x.c, |s|^2, s.c and |c|^2, and s.c is a sum of entries of the table's Gram
matrix. A step costs b*k multiply-adds a vector and layer whatever d is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

CELLS = 1 << 18  # scores held at once: 1 MiB of float32 stays in a core's cache
SEARCHED = 4096  # vectors searched at once
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Beam:
    """The best hypotheses of n vectors, best first."""

    codes: Tensor
    """(n, b, l) int64: entry chosen in each layer so far."""
    along: Tensor
    """(n, b): x.s, the sum's length along the vector."""
    squared: Tensor
    """(n, b): |s|^2."""

    @property
    def cosine(self) -> Tensor:
        """(n, b): cosine of the vector with the sum."""
        return self.along * self.squared.clamp_min(TINY).rsqrt()

    def rows(self, start: int, stop: int) -> Beam:
        return Beam(self.codes[start:stop], self.along[start:stop], self.squared[start:stop])

    def ordered(self, order_nb: Tensor) -> Beam:
        """The hypotheses in another order."""
        codes = self.codes.gather(1, order_nb[..., None].expand_as(self.codes))
        return Beam(codes, self.along.gather(1, order_nb), self.squared.gather(1, order_nb))

    @staticmethod
    def joined(parts: Sequence[Beam]) -> Beam:
        """The beams of several batches of vectors as one."""
        return Beam(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Beam)))


def empty_beam(n: int, device: torch.device) -> Beam:
    """The beam before the first layer: one hypothesis, the empty sum."""
    zero = torch.zeros(n, 1, device=device)
    return Beam(torch.zeros(n, 1, 0, dtype=torch.long, device=device), zero, zero)


@torch.no_grad()
def extend(x_nd: Tensor, beam: Beam, table_Lkd: Tensor, width: int) -> Beam:
    """Add one layer, the next that the beam has not seen, and keep the `width` best hypotheses of each
    vector."""
    layer, k = beam.codes.shape[2], table_Lkd.shape[1]
    entries_kd = table_Lkd[layer]
    crossed = _crossed(table_Lkd, layer)
    step = max(1, CELLS // (beam.codes.shape[1] * k))
    parts = [
        _extend(x_nd[i : i + step], beam.rows(i, i + step), entries_kd, crossed, width)
        for i in range(0, len(x_nd), step)
    ]
    return Beam.joined(parts)


@torch.no_grad()
def beam_search(x_nd: Tensor, table_Lkd: Tensor, width: int) -> Beam:
    """Search through every layer of the table, in bounded memory.

    faiss's lookup-table encoder keeps the hypotheses whose sums are nearest to the vector, faster than
    `extend` layer by layer; the complete ones are then ordered by their cosine.

    Parameters
    ----------
    x_nd : Tensor of shape (n, d), float32
        Unit vectors.
    table_Lkd : Tensor of shape (L, k, d), float32
        k is a power of two.
    width : int
        Hypotheses kept after each layer, >= 1.

    Returns
    -------
    Beam
        With min(width, k**L) hypotheses a vector.
    """
    import faiss

    n_layers, k, dim = table_Lkd.shape
    width = min(width, k**n_layers)
    entries_jd = table_Lkd.reshape(-1, dim).contiguous()
    quantizer: Any = faiss.ResidualQuantizer(dim, n_layers, k.bit_length() - 1)
    faiss.copy_array_to_vector(entries_jd.numpy().ravel(), quantizer.codebooks)
    quantizer.is_trained = True
    quantizer.max_beam_size = width
    quantizer.compute_codebook_tables()
    place_L = torch.arange(n_layers) * k
    parts = []
    for start in range(0, max(len(x_nd), 1), SEARCHED):
        x = x_nd[start : start + SEARCHED]
        dots_nj = x @ entries_jd.T
        code_nbl = torch.empty(len(x), width, n_layers, dtype=torch.int32)
        distance_nb = torch.empty(len(x), width)
        one_n = torch.ones(len(x))
        pointers = [faiss.swig_ptr(t.numpy()) for t in (one_n, dots_nj)]
        found = [faiss.swig_ptr(t.numpy()) for t in (code_nbl, distance_nb)]
        quantizer.refine_beam_LUT(len(x), *pointers, width, *found)
        codes = code_nbl.long()
        along_nb = dots_nj.gather(1, (codes + place_L).flatten(1)).view(codes.shape).sum(2)
        beam = Beam(codes, along_nb, distance_nb - 1 + 2 * along_nb)
        order_nb = beam.cosine.argsort(dim=1, descending=True, stable=True)
        parts.append(beam.ordered(order_nb))
    return Beam.joined(parts)


def _crossed(table_Lkd: Tensor, layer: int) -> Tensor:
    """(layer * k, k): 2 c_j.c for every entry c_j of the earlier layers and c of this one; |c|^2 is folded
    into layer 0."""
    entries_kd = table_Lkd[layer]
    norms_k = entries_kd.square().sum(1)
    if layer == 0:
        return norms_k[None]
    gram = 2 * (table_Lkd[:layer].flatten(0, 1) @ entries_kd.T)
    gram[: len(entries_kd)] += norms_k
    return gram


def _extend(x_nd: Tensor, beam: Beam, entries_kd: Tensor, crossed: Tensor, width: int) -> Beam:
    n, alive, layer = beam.codes.shape
    k = len(entries_kd)
    dots_nk = x_nd @ entries_kd.T
    if layer == 0:
        growth_nbk = crossed.expand(n, 1, k)
    else:
        place = beam.codes + torch.arange(layer, device=x_nd.device) * k
        growth_nbk = torch.nn.functional.embedding_bag(place.flatten(0, 1), crossed, mode="sum").view(n, alive, k)
    score_nbk = (growth_nbk + beam.squared[..., None]).clamp_min_(TINY).rsqrt_()
    score_nbk *= beam.along[..., None] + dots_nk[:, None]
    # The best `width` of all lie among the `width` entries whose best hypothesis is best: two short
    # selections for a long one.
    picked_nw = score_nbk.amax(1).topk(min(width, k), dim=1).indices
    short = score_nbk.gather(2, picked_nw[:, None].expand(-1, alive, -1)).flatten(1)
    kept_nw = short.topk(min(width, short.shape[1]), dim=1).indices
    parent_nw = kept_nw // picked_nw.shape[1]
    code_nw = picked_nw.gather(1, kept_nw % picked_nw.shape[1])
    history = beam.codes.gather(1, parent_nw[..., None].expand(-1, -1, layer))
    along_nw = beam.along.gather(1, parent_nw) + dots_nk.gather(1, code_nw)
    grown_nw = growth_nbk.flatten(1).gather(1, parent_nw * k + code_nw)
    return Beam(torch.cat([history, code_nw[..., None]], 2), along_nw, beam.squared.gather(1, parent_nw) + grown_nw)
