"""Fitting the tables of a residual codebook.

Shapes: n vectors, L layers, k entries a layer, d dimensions, b hypotheses alive in the beam.
All functions are seeded, take and return float32 tensors, and read vectors of unit length.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hymirec_model.beam_search import Beam, beam_search, empty_beam, extend
from hymirec_model.config import CodebookConfig

FIT_BEAM = 8  # hypotheses a vector while fitting; encoding may use more
RESIDUALS = 5  # of which so many leave their residual to train the next layer
RESIDUALS_AN_ENTRY = 200  # residuals that a layer's k-means reads, for each of its entries
REFIT_BEAM = 4  # hypotheses a vector that the joint refit reads
REFITS = 4  # joint refits on the way, at even steps of at least two layers
RIDGE = 10.0  # of the joint refit: pull of ten vectors on every entry to stay where it is
TEMPERATURE = 0.05  # of a hypothesis' weight softmax(cosine / temperature) in the joint refit


@dataclass(frozen=True, slots=True)
class Fit:
    """What one generation's fit found."""

    table: Tensor
    """(L, k, d) entries; `form="projection"`: (L / 2, k, d) unit directions."""
    coefficient_range: Tensor
    """`form="projection"`: (L / 2, 2) least and largest coefficient; else (0, 2)."""
    report: dict[str, int | float]
    """Vectors read, cosine on them, and what the joint refit brought."""


def fit_additive(vectors: Tensor, config: CodebookConfig) -> Fit:
    """Layers one by one on the beam's residuals; every few layers all entries so far are refitted jointly.

    Parameters
    ----------
    vectors : Tensor of shape (n, d)
        Unit vectors, n >= config.size.
    config : CodebookConfig

    Returns
    -------
    Fit
    """
    generator = torch.Generator().manual_seed(config.seed)
    width = min(config.beam, FIT_BEAM)
    every = max(2, config.layers // REFITS)
    table_Lkd = torch.zeros(0, config.size, vectors.shape[1])
    beam = empty_beam(len(vectors), vectors.device)
    for done in range(1, config.layers + 1):
        residuals = _beam_residuals(vectors, beam.codes[:, :RESIDUALS], table_Lkd, config, generator)
        entries_kd = cosine_kmeans(residuals, config.size, config.iterations, generator)
        table_Lkd = torch.cat([table_Lkd, entries_kd[None]])
        beam = extend(vectors, beam, table_Lkd, width)
        last = done == config.layers
        # What follows is fitted on what a refitted front leaves, so an early refit is worth more than a late one.
        for _ in range(config.refit_rounds if last else int(config.refit_rounds > 0 and done % every == 0)):
            table_Lkd = joint_refit(vectors, table_Lkd, beam)
            beam = beam_search(vectors, table_Lkd, width)
    report: dict[str, int | float] = {"vectors": len(vectors), "train_cosine": float(beam.cosine[:, 0].mean())}
    return Fit(table_Lkd, torch.zeros(0, 2), report)


def fit_projection(vectors: Tensor, config: CodebookConfig) -> Fit:
    """The paper's literal form: balanced cosine k-means a layer, residual e - (e.c)c, a coefficient a layer.

    Half of the bytes are codes, half are their coefficients in 8 bits.
    """
    generator = torch.Generator().manual_seed(config.seed)
    residual_nd = vectors
    directions, ranges = [], []
    for _ in range(config.layers // 2):
        centres_kd = cosine_kmeans(residual_nd, config.size, config.iterations, generator, balanced=True)
        directions.append(normalize(centres_kd, dim=-1))
        code_n, along_n = project(residual_nd, directions[-1])
        ranges.append(torch.stack([along_n.min(), along_n.max()]))
        level_n = quantise(along_n, ranges[-1])
        residual_nd = residual_nd - dequantise(level_n, ranges[-1])[:, None] * directions[-1][code_n]
    cosine = torch.nn.functional.cosine_similarity(vectors - residual_nd, vectors).mean()
    report: dict[str, int | float] = {"vectors": len(vectors), "train_cosine": float(cosine)}
    return Fit(torch.stack(directions), torch.stack(ranges), report)


def project(residual_nd: Tensor, directions_kd: Tensor) -> tuple[Tensor, Tensor]:
    """Entry of the largest cosine, and the length along it."""
    along_n, code_n = (residual_nd @ directions_kd.T).max(1)
    return code_n, along_n


def quantise(values: Tensor, bounds: Tensor) -> Tensor:
    """Nearest of 256 even levels from bounds[0] to bounds[1], as int64."""
    step = ((bounds[1] - bounds[0]) / 255).clamp_min(1e-12)
    return ((values - bounds[0]) / step).round().clamp(0, 255).long()


def dequantise(levels: Tensor, bounds: Tensor) -> Tensor:
    return bounds[..., 0] + levels * ((bounds[..., 1] - bounds[..., 0]) / 255)


def cosine_kmeans(
    points: Tensor, k: int, iterations: int, generator: torch.Generator, *, balanced: bool = False
) -> Tensor:
    """k-means that assigns by cosine and keeps the plain mean of each cluster, length included.

    Parameters
    ----------
    points : Tensor of shape (n, d)
        n >= k.
    k, iterations : int
    generator : torch.Generator
        Chooses the first centres among the points.
    balanced : bool, default=False
        Give no cluster more than ceil(n / k) points.

    Returns
    -------
    Tensor of shape (k, d)
    """
    centres_kd = points[torch.randperm(len(points), generator=generator)[:k]].clone()
    for _ in range(iterations):
        similarity_nk = points @ normalize(centres_kd, dim=-1).T
        label_n = balanced_labels(similarity_nk) if balanced else similarity_nk.argmax(1)
        count_k = torch.bincount(label_n, minlength=k)
        sum_kd = torch.zeros_like(centres_kd).index_add_(0, label_n, points)
        centres_kd = sum_kd / count_k.clamp_min(1)[:, None]
        empty = (count_k == 0).nonzero()[:, 0]
        if len(empty):
            off_axis_n = points.square().sum(1) - similarity_nk.gather(1, label_n[:, None])[:, 0].square()
            centres_kd[empty] = points[off_axis_n.topk(len(empty)).indices]
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


def joint_refit(vectors: Tensor, table_Lkd: Tensor, beam: Beam) -> Tensor:
    """All layers' entries at once, by ridge least squares over complete hypotheses.

    Each vector asks the sum of each of its best hypotheses to equal it, weighted by softmax(cosine / TEMPERATURE):
    codes that almost won are fitted too, which is what a beam needs. The ridge holds entries where they are, not at
    zero, and the more firmly the more entries there are for a vector: a book with as many entries as vectors would
    learn them by heart.

    Parameters
    ----------
    vectors : Tensor of shape (n, d)
    table_Lkd : Tensor of shape (L, k, d)
    beam : Beam
        The vectors' hypotheses in this table.

    Returns
    -------
    Tensor of shape (L, k, d)
    """
    n_layers, k, dim = table_Lkd.shape
    code_nbL = beam.codes[:, :REFIT_BEAM]
    weight_nb = torch.softmax(beam.cosine[:, :REFIT_BEAM] / TEMPERATURE, dim=1)
    normal = torch.zeros(n_layers, k, n_layers, k)
    right = torch.zeros(n_layers, k, dim)
    for i in range(n_layers):
        for j in range(i, n_layers):
            pair_nb = code_nbL[..., i] * k + code_nbL[..., j]
            together = torch.bincount(pair_nb.flatten(), weights=weight_nb.flatten(), minlength=k * k).view(k, k)
            normal[i, :, j], normal[j, :, i] = together, together.T
        for b in range(code_nbL.shape[1]):
            right[i].index_add_(0, code_nbL[:, b, i], vectors * weight_nb[:, b, None])
    matrix = normal.view(n_layers * k, n_layers * k)
    missing = right.view(n_layers * k, dim) - matrix @ table_Lkd.view(n_layers * k, dim)
    matrix.diagonal().add_(RIDGE * (1 + (2 * len(matrix) / len(vectors)) ** 2))
    return table_Lkd + torch.cholesky_solve(missing, torch.linalg.cholesky(matrix)).view(n_layers, k, dim)


def _beam_residuals(
    vectors: Tensor, code_nbl: Tensor, table_Lkd: Tensor, config: CodebookConfig, generator: torch.Generator
) -> Tensor:
    """What the best hypotheses leave of their vectors: at most RESIDUALS_AN_ENTRY * k rows, drawn at
    random."""
    n, alive, n_layers = code_nbl.shape
    wanted = min(n * alive, RESIDUALS_AN_ENTRY * config.size)
    drawn = torch.randperm(n * alive, generator=generator)[:wanted]
    residuals = vectors[drawn // alive]
    codes = code_nbl.flatten(0, 1)[drawn]
    for layer in range(n_layers):
        residuals = residuals - table_Lkd[layer][codes[:, layer]]
    return residuals
