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
from hymirec_model.residual_kmeans import Residuals, cosine_kmeans

FIT_BEAM = 16  # hypotheses a vector while fitting; each leaves a residual to train the next layer
RESIDUALS_AN_ENTRY = 400  # residuals that a layer's k-means reads, for each of its entries
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
    """Vectors read, and their mean cosine."""


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
    every = max(2, config.layers // REFITS)
    table_Lkd = torch.zeros(0, config.size, vectors.shape[1])
    beam = empty_beam(len(vectors), vectors.device)
    for done in range(1, config.layers + 1):
        residuals = _beam_residuals(vectors, beam, table_Lkd, generator)
        entries_kd = cosine_kmeans(residuals, config.size, config.iterations, generator)
        table_Lkd = torch.cat([table_Lkd, entries_kd[None]])
        beam = extend(vectors, beam, table_Lkd, FIT_BEAM)
        last = done == config.layers
        # What follows is fitted on what a refitted front leaves, so an early refit is worth more than a late one.
        for _ in range(config.refit_rounds if last else int(config.refit_rounds > 0 and done % every == 0)):
            table_Lkd = joint_refit(vectors, table_Lkd, beam)
            beam = beam_search(vectors, table_Lkd, FIT_BEAM)
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
        centres_kd = cosine_kmeans(Residuals.of(residual_nd), config.size, config.iterations, generator, balanced=True)
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


def _beam_residuals(vectors: Tensor, beam: Beam, table_Lkd: Tensor, generator: torch.Generator) -> Residuals:
    """Residuals of all hypotheses, or of RESIDUALS_AN_ENTRY * k drawn at random."""
    n, alive, n_layers = beam.codes.shape
    wanted = RESIDUALS_AN_ENTRY * table_Lkd.shape[1]
    drawn = torch.randperm(n * alive, generator=generator)[:wanted].sort().values
    return Residuals(vectors, drawn // alive, beam.codes.reshape(n * alive, n_layers)[drawn], table_Lkd)
