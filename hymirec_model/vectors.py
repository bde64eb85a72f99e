"""Checks and samples of unit vectors."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from hymirec_model.errors import InputError

Floats = npt.NDArray[np.floating]
Scalar = TypeVar("Scalar", bound=np.generic)
DRAWS = 8  # of each distinct vector in a weighted sample, on average at most
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


def float32_rows(vectors: Floats, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """Rows of vectors of shape (n, d), in memory or a memory-mapped file, as float32: shape (*rows.shape, d).

    For 16-bit floats four times as fast as numpy alone, which converts them one by one.
    """
    taken = np.take(vectors, rows.ravel(), axis=0)
    found: npt.NDArray[np.float32] = torch.from_numpy(taken).float().numpy()
    return found.reshape(*rows.shape, -1)


def distinct_rows(rows: npt.NDArray[Scalar]) -> tuple[npt.NDArray[Scalar], npt.NDArray[np.int64]]:
    """The distinct ones of rows of shape (n, d), in the order of their bytes, and the place of each row among them.

    Several times as fast as numpy.unique along an axis, which compares number by number.
    """
    packed = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
    keys, place = np.unique(packed, return_inverse=True)
    return keys.view(rows.dtype).reshape(-1, rows.shape[1]), place


def distinct_sample(
    vectors: Floats, limit: int, seed: int, weight: npt.NDArray[np.floating] | None = None
) -> tuple[npt.NDArray[np.float32], int]:
    """A sample of rows for a fit, whatever order the rows come in, and how many distinct rows there were.

    Many products share a text and hence a vector: repeats would put centres where others are. So the sample
    holds at most `limit` distinct rows; with weights, as many draws from them by their weight (of
    equal rows the sum), the same row as often as it is drawn, but no more than DRAWS times the distinct rows.
    """
    distinct, place = distinct_rows(np.asarray(vectors, dtype=np.float32))
    n, random = len(distinct), np.random.default_rng(seed)
    if weight is not None and n:
        share = np.bincount(place, weight, n)
        draws = min(limit, DRAWS * n)
        return distinct[np.sort(random.choice(n, draws, p=share / share.sum()))], int((share > 0).sum())
    if n > limit:
        return distinct[np.sort(random.choice(n, limit, replace=False))], n
    return distinct, n


def check_weights(weight: npt.ArrayLike, n: int) -> npt.NDArray[np.float64]:
    """The weights as float64, or an InputError if they are not one finite number >= 0 a row, some of them > 0."""
    values = np.asarray(weight, np.float64)
    if values.shape != (n,) or not (np.isfinite(values).all() and (values >= 0).all() and (n == 0 or values.any())):
        raise InputError(
            f"sample_weight: got shape {values.shape} from {values.min(initial=np.inf):.4g} to "
            f"{values.max(initial=-np.inf):.4g}, required ({n},), finite, >= 0 and not all 0."
        )
    return values
