"""Maximal marginal relevance: a ranked list in which each item adds something to those above it.

Shapes: U users, c candidates of a user, n places of a list, d dimensions.

References
----------
J. Carbonell, J. Goldstein: The use of MMR, diversity-based reranking for reordering documents and producing
summaries. SIGIR 1998.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hymirec_model.errors import require

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


def diversify(items: Ints, relevance: Floats, vectors: Floats, n: int, diversity: float) -> Ints:
    """Choose n candidates one after the other, each the best by relevance less likeness to those chosen before.

    The candidate i that has the largest ``(1 - diversity) * relevance[i] - diversity * max_j cosine(i, j)``
    comes next, j running over the chosen ones; the first is the most relevant. Equal values resolve by
    position.

    Parameters
    ----------
    items : int array of shape (U, c)
        Candidates, usually best first; -1 marks a place without one.
    relevance : array of shape (U, c)
        In units of cosines, which it is weighed against: the score itself for merge "max", the score / scale
        for "lse" and "calibrated". Ignored where there is no candidate.
    vectors : array of shape (U, c, d)
        Unit vectors of the candidates; any finite value where there is none.
    n : int
        Length of the lists, 1 to c.
    diversity : float
        0 to 1; 1 - lambda of the paper. 0 orders by relevance alone, 1 by likeness alone after the first.

    Returns
    -------
    int64 array of shape (U, n)
        Columns of the chosen candidates, in order; -1 where a user has fewer than n.

    Raises
    ------
    InputError
        If shapes do not fit, n or diversity is not allowed, or the relevance of a candidate is not finite.
    """
    relevance, vectors = np.asarray(relevance, np.float32), np.asarray(vectors, np.float32)
    fits = items.ndim == 2 and items.shape == relevance.shape == vectors.shape[:2] and vectors.ndim == 3
    require(
        fits,
        f"items, relevance, vectors: got shapes {items.shape}, {relevance.shape} and {vectors.shape}, "
        "expected (users, candidates) twice and (users, candidates, dimensions).",
    )
    require(1 <= n <= items.shape[1], f"n: got {n}, allowed 1 to {items.shape[1]}, the number of candidates.")
    require(0 <= diversity <= 1, f"diversity: got {diversity}, allowed 0 to 1.")
    present = items >= 0
    require(bool(np.isfinite(relevance[present]).all()), "relevance: got values that are not finite.")

    value = np.where(present, relevance, -np.inf)
    gain = np.where(present, (1 - diversity) * np.where(present, relevance, 0), -np.inf)
    likeness = np.full(items.shape, -np.inf, np.float32)
    users = np.arange(len(items))
    chosen = np.full((len(items), n), -1, np.int64)
    for place in range(n):
        best = value.argmax(1)
        found = value[users, best] > -np.inf
        chosen[found, place] = best[found]
        gain[users, best] = -np.inf  # taken
        # einsum adds up each product on its own, so that a user's list does not depend on the others'
        likeness = np.maximum(likeness, np.einsum("ucd,ud->uc", vectors, vectors[users, best]))
        value = gain - diversity * likeness
    return chosen
