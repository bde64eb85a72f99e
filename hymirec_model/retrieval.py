"""From K interests to one ranked list: merged scores, exact retrieval, and retrieval through an ANN index.

Shapes: U users, K interests, n items, c candidates of a user, d dimensions. Vectors are unit vectors; scores
are cosines (`max`) or natural logs (`lse`, `calibrated`), comparable within a user only.

    max         s(i) = max_k  u_k . e_i                             the paper's rule
    lse         s(i) = log sum_k exp(scale * u_k . e_i)             the score a mixture is trained on
    calibrated  s(i) = log sum_k w_k exp(scale * u_k . e_i)         w_k = 1 / Z_k, see `calibration_weights`

An interest of weight 0 does not exist: no rule counts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hymirec_model.errors import InputError
from hymirec_model.ranking import top_columns

if TYPE_CHECKING:
    from collections.abc import Iterator

Ints = npt.NDArray[np.integer]
Merge = Literal["max", "lse", "calibrated"]
CELLS = 1 << 24  # scores held at once by the chunked functions: 64 MiB of float32, a few times over


def merge_scores(
    user_interests: Tensor, weights: Tensor, item_vectors: Tensor, merge: Merge = "lse", scale: float = 1.0
) -> Tensor:
    """Exact merged score of every item for every user.

    Parameters
    ----------
    user_interests : Tensor of shape (U, K, d)
        Unit vectors.
    weights : Tensor of shape (U, K)
        Non-negative; 0 marks an interest that does not exist. Their size counts for `merge="calibrated"`
        only.
    item_vectors : Tensor of shape (n, d), or (U, c, d) for candidates of each user's own
        Unit vectors.
    merge : {"max", "lse", "calibrated"}, default="lse"
    scale : float, default=1.0
        Factor on the cosines (the inverse temperature of training), > 0. Without effect for `merge="max"`.

    Returns
    -------
    Tensor of shape (U, n) or (U, c), float32

    Raises
    ------
    InputError
        If shapes do not fit, or merge or scale are not allowed.
    """
    _check(user_interests, weights, item_vectors, merge, scale)
    with torch.autocast(user_interests.device.type, enabled=False):
        return _merge(user_interests.float(), weights.float(), item_vectors.float(), merge, scale)


def _merge(interest_UKd: Tensor, weight_UK: Tensor, items: Tensor, merge: Merge, scale: float) -> Tensor:
    total: Tensor | None = None
    for k in range(interest_UKd.shape[1]):  # one interest at a time: never a (U, K, n) tensor
        interest_Ud = interest_UKd[:, k]
        cosine_Un = interest_Ud @ items.T if items.ndim == 2 else (items @ interest_Ud[:, :, None]).squeeze(2)
        weight_U1 = weight_UK[:, k, None]
        if merge == "max":
            score_Un = cosine_Un.masked_fill(weight_U1 <= 0, -torch.inf)
            total = score_Un if total is None else torch.maximum(total, score_Un)
            continue
        weighted_U1 = weight_U1 if merge == "calibrated" else (weight_U1 > 0).float()
        score_Un = cosine_Un.mul_(scale) + weighted_U1.log()
        total = score_Un if total is None else torch.logaddexp(total, score_Un)
    assert total is not None
    return total


def calibration_weights(user_interests: Tensor, sample_vectors: Tensor, scale: float) -> Tensor:
    """Weights 1 / Z_k that put interests trained apart on one scale; each user's sum to 1.

    Z_k = mean of exp(scale * u_k . e): how much an interest likes everything. 512 sampled items serve.

    Parameters
    ----------
    user_interests : Tensor of shape (U, K, d)
    sample_vectors : Tensor of shape (s, d)
    scale : float

    Returns
    -------
    Tensor of shape (U, K), float32
    """
    _check(user_interests, user_interests[..., 0], sample_vectors, "calibrated", scale)
    log_z_UK = torch.logsumexp(scale * (user_interests.float() @ sample_vectors.float().T), dim=-1)
    return torch.softmax(-log_z_UK, dim=-1)


@torch.no_grad()
def top_items(
    user_interests: Tensor,
    weights: Tensor,
    item_vectors: Tensor,
    n: int,
    merge: Merge = "lse",
    scale: float = 1.0,
    *,
    exclude: tuple[Ints, Ints] | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Exact top-n items of every user over the whole catalogue, in bounded memory.

    Equal scores (many products share a text, hence a vector) are ordered by a seeded permutation of the
    items, never by their index.

    Parameters
    ----------
    user_interests, weights, item_vectors, merge, scale
        See `merge_scores`; item_vectors of shape (n_items, d).
    n : int
        Length of the lists, 1 <= n <= n_items.
    exclude : (offsets, items), optional
        Ragged items to leave out: user u's are `items[offsets[u]:offsets[u + 1]]`.
    seed : int, default=0
        Seed of the permutation.

    Returns
    -------
    items : Tensor of shape (U, n), int64
        Row numbers of `item_vectors`, best first; -1 where exclusion leaves fewer than n.
    scores : Tensor of shape (U, n), float32
        -inf where the item is -1.

    Raises
    ------
    InputError
        As `merge_scores`; or if n is not allowed, or a user has no interest of positive weight.
    """
    _check(user_interests, weights, item_vectors, merge, scale)
    if item_vectors.ndim != 2 or not 1 <= n <= len(item_vectors):
        raise InputError(
            f"n: got {n} with item_vectors of shape {tuple(item_vectors.shape)}, "
            "allowed 1 to the number of items of a (n_items, d) matrix."
        )
    _check_weights(weights)
    order_n = _permutation(len(item_vectors), seed).to(item_vectors.device)
    shuffled_nd = item_vectors.float()[order_n]
    place_of_n = order_n.argsort()
    items, scores = [], []
    for part in _chunks(len(user_interests), len(item_vectors)):
        score_Un = merge_scores(user_interests[part], weights[part], shuffled_nd, merge, scale)
        if exclude is not None:
            user, item = _ragged_rows(exclude, part, len(user_interests))
            score_Un[user.to(score_Un.device), place_of_n[item.to(score_Un.device)]] = -torch.inf
        place_Un, best_Un = top_columns(score_Un, n)
        items.append(order_n[place_Un].masked_fill(place_Un < 0, -1))
        scores.append(best_Un)
    return torch.cat(items), torch.cat(scores)


@torch.no_grad()
def search(
    index: Any,
    user_interests: npt.NDArray[np.floating],
    weights: npt.NDArray[np.floating],
    item_vectors: npt.NDArray[np.floating],
    n: int,
    merge: Merge = "lse",
    scale: float = 1.0,
    *,
    per_interest: int | None = None,
    seed: int = 0,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Top-n items of every user through an ANN index: the nearest items of each interest, united and
    re-ranked exactly.

    Parameters
    ----------
    index : faiss.Index
        Inner-product index whose ids are row numbers of `item_vectors`.
    user_interests : array of shape (U, K, d)
    weights : array of shape (U, K)
    item_vectors : array of shape (n_items, d), any float type
        Read by rows only, so a memory-mapped file will do.
    n : int
        Length of the lists, >= 1.
    merge, scale
        See `merge_scores`.
    per_interest : int, optional
        Items fetched for each interest, by default n (fewer loses recall).
    seed : int, default=0
        Order among equal scores, as in `top_items`.

    Returns
    -------
    items : int64 array of shape (U, n)
        Best first; -1 where the united candidates are fewer than n.
    scores : float32 array of shape (U, n)
        -inf where the item is -1.

    Raises
    ------
    InputError
        As `top_items`; or if the index and the vectors disagree in size or dimension.
    """
    fetched = n if per_interest is None else per_interest
    if n < 1 or fetched < 1:
        raise InputError(f"n and per_interest: got {n} and {fetched}, both must be >= 1.")
    if (index.ntotal, index.d) != item_vectors.shape:
        raise InputError(
            f"index holds {index.ntotal} vectors of {index.d} dimensions, item_vectors has shape "
            f"{item_vectors.shape}: they belong to different days; take both from one release."
        )
    interest_UKd = torch.from_numpy(np.ascontiguousarray(user_interests, dtype=np.float32))
    weight_UK = torch.from_numpy(np.ascontiguousarray(weights, dtype=np.float32))
    n_users, n_interests, dim = interest_UKd.shape
    if dim != index.d:
        raise InputError(f"user_interests: got {dim} dimensions, the index has {index.d}.")
    _check_weights(weight_UK)
    fetched = min(fetched, index.ntotal)
    rank_n = torch.argsort(_permutation(index.ntotal, seed))
    items = np.full((n_users, n), -1, np.int64)
    scores = np.full((n_users, n), -np.inf, np.float32)
    for part in _chunks(n_users, n_interests * fetched * dim):
        _, found = index.search(interest_UKd[part].reshape(-1, dim).numpy(), fetched)
        found_Uc = torch.from_numpy(found).reshape(-1, n_interests, fetched)
        found_Uc = found_Uc.masked_fill(weight_UK[part][..., None] <= 0, -1).flatten(1).sort(1).values
        repeated_Uc = torch.zeros_like(found_Uc, dtype=torch.bool)
        repeated_Uc[:, 1:] = found_Uc[:, 1:] == found_Uc[:, :-1]
        absent_Uc = repeated_Uc | (found_Uc < 0)
        row_Uc = found_Uc.clamp_min(0)
        vector_Ucd = torch.from_numpy(item_vectors[row_Uc.numpy()].astype(np.float32, copy=False))
        score_Uc = merge_scores(interest_UKd[part], weight_UK[part], vector_Ucd, merge, scale)
        score_Uc = score_Uc.masked_fill(absent_Uc, -torch.inf)
        by_rank_Uc = rank_n[row_Uc].argsort(dim=1)
        order_Uc = score_Uc.gather(1, by_rank_Uc).sort(dim=1, descending=True, stable=True).indices[:, :n]
        order_Uc = by_rank_Uc.gather(1, order_Uc)
        width = order_Uc.shape[1]
        items[part, :width] = found_Uc.masked_fill(absent_Uc, -1).gather(1, order_Uc).numpy()
        scores[part, :width] = score_Uc.gather(1, order_Uc).numpy()
    return items, scores


def _ragged_rows(ragged: tuple[Ints, Ints], part: slice, n_users: int) -> tuple[Tensor, Tensor]:
    """Row within the part and item of every ragged entry of the users in `part`."""
    offsets, items = np.asarray(ragged[0], np.int64), np.asarray(ragged[1], np.int64)
    if len(offsets) != n_users + 1 or offsets[-1] != len(items):
        raise InputError(
            f"exclude: got {len(offsets)} offsets over {len(items)} items, "
            f"expected {n_users + 1} from 0 to {len(items)}."
        )
    bounds = offsets[part.start : part.stop + 1]
    users = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    return torch.from_numpy(users), torch.from_numpy(items[bounds[0] : bounds[-1]])


def _permutation(n_items: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).permutation(n_items))


def _chunks(n_users: int, cells_a_user: int) -> Iterator[slice]:
    step = max(1, CELLS // max(1, cells_a_user))
    for start in range(0, max(n_users, 1), step):  # no users: one empty chunk
        yield slice(start, min(start + step, n_users))


def _check(interests: Tensor, weights: Tensor, items: Tensor, merge: str, scale: float) -> None:
    if interests.ndim != 3 or 0 in interests.shape[1:] or weights.shape != interests.shape[:2]:
        raise InputError(
            f"user_interests and weights: got shapes {tuple(interests.shape)} and {tuple(weights.shape)}, "
            "expected (users, interests >= 1, dimensions >= 1) and (users, interests)."
        )
    fits = items.ndim in (2, 3) and items.shape[-1] == interests.shape[2]
    if not fits or (items.ndim == 3 and len(items) != len(interests)):
        raise InputError(
            f"item_vectors: got shape {tuple(items.shape)}, expected (items, {interests.shape[2]}) "
            f"or ({len(interests)}, candidates, {interests.shape[2]})."
        )
    if merge not in get_args(Merge):
        raise InputError(f"merge: got {merge!r}, allowed {', '.join(get_args(Merge))}.")
    if not scale > 0:
        raise InputError(f"scale: got {scale}, must be > 0.")


def _check_weights(weights: Tensor) -> None:
    bad = ~(torch.isfinite(weights).all(1) & (weights >= 0).all(1) & (weights > 0).any(1))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise InputError(
            f"weights: {int(bad.sum())} users have weights that are negative, not finite or all zero "
            f"(the first is row {row}: {weights[row].tolist()}); every user needs one of positive weight."
        )
