"""Checks and samples of unit vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hymirec_model.errors import InputError

Floats = npt.NDArray[np.floating]
UNIT_TOLERANCE = 1e-2  # float16 keeps the length of a unit vector to about 1e-3


def check_vectors(vectors: Floats, dim: int | None = None) -> npt.NDArray[np.float32]:
    """The vectors as float32, or an InputError that names the first row that is not a finite unit vector."""
    rows = np.asarray(vectors)
    fits = rows.ndim == 2 and rows.shape[1] > 0 and dim in (None, rows.shape[1])
    if not fits or not np.issubdtype(rows.dtype, np.floating):
        raise InputError(
            f"vectors: got shape {rows.shape} {rows.dtype}, expected floating point (n, {dim or 'dimensions'})."
        )
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    length = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    bad = np.flatnonzero(~(np.abs(length - 1) <= UNIT_TOLERANCE))
    if len(bad):
        raise InputError(
            f"vectors: {len(bad)} of {len(rows)} are not of unit length; the first is row {bad[0]} of length "
            f"{length[bad[0]]:.4g}, required 1 +- {UNIT_TOLERANCE} (nan or inf: the row is not finite)."
        )
    return rows


def distinct_sample(vectors: Floats, limit: int, seed: int) -> npt.NDArray[np.float32]:
    """At most `limit` distinct rows, whatever order the rows come in.

    Many products share a text and hence a vector: repeats would leave the validation split no judge, and
    centres twice.
    """
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    distinct = np.unique(rows.view(np.dtype((np.void, rows.shape[1] * 4))).ravel())
    if len(distinct) > limit:
        distinct = distinct[np.sort(np.random.default_rng(seed).choice(len(distinct), limit, replace=False))]
    return distinct.view(np.float32).reshape(-1, rows.shape[1])
