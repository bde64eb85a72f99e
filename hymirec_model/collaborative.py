"""Item vectors from the log alone: items that people take soon after one another lie close together.

The matrix of how often two items come near one another, scaled by a power of each item's total, is factorised by its
largest eigenvalues. That is the classic count model of word vectors (Levy, Goldberg and Dagan 2015,
doi:10.1162/tacl_a_00134), which also finds that powers of the spectrum below 1 serve better than the exact
factorisation.

The length of such a vector tells how much of the log an item explains, and unit vectors would lose it. So the last
coordinate holds what is missing to length 1: the inner product with a user vector that is zero there is that of the
vectors without it (Bachrach et al. 2014, doi:10.1145/2645710.2645741, section 3).

Shapes: I items, d dimensions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from hymirec_model.config import ItemSpaceConfig
from hymirec_model.errors import require
from hymirec_model.histories import Histories

Floats = npt.NDArray[np.float32]
LENGTH_EXPONENT = 0.6  # flattens lengths: at 1 the few longest vectors would be found by everybody
LONGEST = 0.9995  # quantile of the lengths that becomes 1
MOST_PAIRS = 100_000_000
"""Pairs of events that are counted at most, from a sample of the users: 16 bytes each where no pair comes twice, and
28 while they are summed."""


def collaborative_vectors(histories: Histories, items: int, config: ItemSpaceConfig) -> Floats:
    """Unit vectors (items, d); zero for items without events, of a long log in the sample that is counted.

    Parameters
    ----------
    histories : Histories
        Only what training may see.
    items : int
        I.
    config : ItemSpaceConfig
        `dim`, `near`, `near_decay`, `item_exponent`, `spectrum_exponent` and `seed` are read.

    Raises
    ------
    InputError
        If there are no users.
    """
    require(len(histories) > 0, "histories: seen 0 users; allowed: 1 or more")
    vectors = np.zeros((items, config.dim), np.float32)
    sample = _sample(histories, MOST_PAIRS // config.near, config.seed)
    known = np.flatnonzero(np.bincount(sample.items, minlength=items))
    rank = min(config.dim - 1, len(known) - 1)
    if rank > 0:
        counts = co_occurrence(sample, items, config.near, config.near_decay)[known][:, known]
        if counts.nnz:  # else nobody has two events
            vectors[known, :rank] = _leading_axes(counts, rank, config)
    length = np.linalg.norm(vectors, axis=1)
    flat = length**LENGTH_EXPONENT
    longest = np.quantile(flat[length > 0], LONGEST) if length.any() else 1.0
    wanted = np.minimum(flat / longest, 1)
    vectors *= np.divide(wanted, length, out=np.zeros_like(length), where=length > 0)[:, None]
    vectors[known, -1] = np.sqrt(1 - wanted[known] ** 2)
    return vectors


def _sample(histories: Histories, events: int, seed: int) -> Histories:
    """Users drawn at random, as many as have at most ``events`` events together; at least one."""
    if len(histories.items) <= events:
        return histories
    order = np.random.default_rng(seed).permutation(len(histories))
    fits = np.cumsum(np.diff(histories.offsets)[order]) <= events
    return histories.of_users(np.sort(order[: max(1, int(fits.sum()))]))


def co_occurrence(histories: Histories, items: int, near: int, decay: float) -> sp.csr_array:
    """Symmetric sums (items, items) of gap ** -decay over pairs of a user's events at most ``near`` events apart."""
    users, taken = histories.users, histories.items.astype(np.int32)  # of which scipy makes smaller matrices
    total = sp.csr_array((items, items), dtype=np.float32)
    for gap in range(1, near + 1):
        same = users[gap:] == users[:-gap]
        weights = np.full(int(same.sum()), gap**-decay, np.float32)
        total = total + sp.csr_array((weights, (taken[:-gap][same], taken[gap:][same])), shape=total.shape)
    return (total + total.T).tocsr()


def _leading_axes(counts: sp.csr_array, rank: int, config: ItemSpaceConfig) -> Floats:
    totals = np.maximum(np.asarray(counts.sum(1)).ravel(), 1e-9)
    scale = sp.diags_array((totals**-config.item_exponent).astype(np.float32))
    start = np.random.default_rng(config.seed).standard_normal(len(totals)).astype(np.float32)
    values, axes = sla.eigsh(scale @ counts @ scale, k=rank, which="LA", v0=start)
    order = np.argsort(-values)
    values, axes = values[order], axes[:, order]
    # An eigenvector's sign is open; fixing it makes reruns equal. What is not positive is noise.
    axes *= np.sign(axes[np.abs(axes).argmax(0), np.arange(rank)])
    strength = np.where(values > 1e-6 * values[0], values.clip(1e-12) ** config.spectrum_exponent, 0)
    return np.asarray(axes * strength, np.float32)
