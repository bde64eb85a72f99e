"""Does a codebook still serve the items that arrive? How faithfully it rebuilds them, beside the items it knows.

HyMiRec names the update of its codebook as an open point. Here a frozen table is a generation, and this module says
when the next one is due.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from hymirec_model.codebook import ResidualCodebook
from hymirec_model.config import CodebookConfig
from hymirec_model.vectors import check_vectors, distinct_rows

Floats = npt.NDArray[np.floating]
Action = Literal["kept", "new generation", "new book"]
NEIGHBOURS = 10
QUERIES = 2_000  # vectors among which neighbours are sought, at most


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How faithfully codes stand for their vectors."""

    vectors: int
    cosine: float
    """Mean cosine of vectors and what their codes stand for."""
    zero_line: float
    """The same if every vector were rebuilt as their mean: item texts share a large one."""
    neighbour_recall: float
    """Share of a vector's ten nearest that are among the ten nearest of what codes stand for (asymmetric)."""


@dataclass(frozen=True, slots=True)
class Drift:
    """Arrivals beside the base pool, the items that the book's first fit knew."""

    base: Fidelity
    arrivals: Fidelity
    why: str
    """Why a new generation is due; empty if none is."""


def next_action(book: ResidualCodebook, drift: Drift, config: CodebookConfig) -> Action:
    """What keeps the book up with its items: no fit, one more generation, or a new book once there are many."""
    if not drift.why:
        return "kept"
    return "new generation" if book.generations_ < config.max_generations else "new book"


def fidelity(vectors: Floats, rebuilt: Floats, queries: int = QUERIES) -> Fidelity:
    """Compare vectors with what their codes stand for.

    Parameters
    ----------
    vectors, rebuilt : arrays of shape (n, d)
        Unit vectors.
    queries : int
        The first so many are the queries and the database of the neighbour recall.

    Returns
    -------
    Fidelity
        All nan without vectors; no neighbour recall with ten vectors or fewer.

    Raises
    ------
    InputError
        If a vector is not a finite unit vector.
    """
    rows, again = check_vectors(vectors), check_vectors(rebuilt)
    if not len(rows):
        return Fidelity(0, float("nan"), float("nan"), float("nan"))
    mean = rows.mean(0)
    length = float(np.linalg.norm(mean))  # the mean cosine of unit vectors with the direction of their mean
    few, few_again = rows[:queries], again[:queries]
    recall = float("nan")
    if len(few) > NEIGHBOURS:
        recall = overlap(nearest(few, few), nearest(few, few_again))
    return Fidelity(len(rows), float((rows * again).sum(1).mean()), length, recall)


def measure_drift(book: ResidualCodebook, base: Floats, arrivals: Floats, config: CodebookConfig) -> Drift:
    """Compare how the book serves arrivals and its base pool, each vector by the generation that suits it best.

    A generation is due when arrivals fall behind by more than `config.drift` in mean cosine or by more than
    `config.drift_recall` in neighbour recall, and as many of them differ as a layer has entries.

    Parameters
    ----------
    book : ResidualCodebook
    base, arrivals : arrays of shape (n, d) and (m, d)
        Samples in random order; neighbours are sought among equally many of both.
    config : CodebookConfig
    """
    same = min(len(base), len(arrivals) or QUERIES, QUERIES)
    known, new = (fidelity(rows, _rebuilt(book, rows), same) for rows in (base, arrivals))
    lost, lost_recall = known.cosine - new.cosine, known.neighbour_recall - new.neighbour_recall
    distinct = len(distinct_rows(np.asarray(arrivals))[0])
    if distinct < config.size or not (lost > config.drift or lost_recall > config.drift_recall):
        return Drift(known, new, "")
    why = (
        f"{distinct:,} different arrivals have cosine {new.cosine:.4f} and neighbour recall "
        f"{new.neighbour_recall:.3f}, the base pool {known.cosine:.4f} and {known.neighbour_recall:.3f}; allowed is a "
        f"drift of {config.drift} and {config.drift_recall}"
    )
    return Drift(known, new, why)


def _rebuilt(book: ResidualCodebook, rows: Floats) -> Floats:
    generations, codes = book.encode_best(rows)
    return book.decode(codes, generations)


def nearest(queries: Floats, database: Floats) -> npt.NDArray[np.int64]:
    """The ten nearest rows of each query but itself, which is the row of the same number: (queries, 10)."""
    scores = queries @ database.T
    np.fill_diagonal(scores, -np.inf)
    return np.argpartition(-scores, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]


def overlap(expected: npt.NDArray[np.int64], found: npt.NDArray[np.int64]) -> float:
    """Mean share of the expected ten that were found."""
    shared = [len(np.intersect1d(a, b)) for a, b in zip(expected, found, strict=True)]
    return float(np.mean(shared)) / NEIGHBOURS
