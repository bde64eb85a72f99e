"""From K interests to one ranked list: merged scores and exact retrieval.

Shapes: U users, K interests, n items, d dimensions. Vectors are unit vectors; scores
are cosines (`max`) or natural logs (`lse`, `calibrated`), comparable within a user only.

    max         s(i) = max_k  u_k . e_i                             the paper's rule
    lse         s(i) = log sum_k exp(scale * u_k . e_i)             the score a mixture is trained on
    calibrated  s(i) = log sum_k w_k exp(scale * u_k . e_i)         w_k = 1 / Z_k, see `calibration_weights`

An interest of weight 0 does not exist: no rule counts it. Items may have a bonus on top, a user's own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hymirec_model.errors import InputError
from hymirec_model.habits import Bonus
from hymirec_model.ranking import top_columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

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
    item_vectors : Tensor of shape (n, d)
        Unit vectors.
    merge : {"max", "lse", "calibrated"}, default="lse"
    scale : float, default=1.0
        Factor on the cosines (the inverse temperature of training), > 0. Without effect for `merge="max"`.

    Returns
    -------
    Tensor of shape (U, n), float32

    Raises
    ------
    InputError
        If shapes do not fit, or merge or scale are not allowed.
    """
    check_scoring(user_interests, weights, item_vectors, merge, scale)
    with torch.autocast(user_interests.device.type, enabled=False):
        item_nd = item_vectors.float()  # one interest at a time: never a (U, K, n) tensor
        return merge_cosines((one_Ud @ item_nd.T for one_Ud in user_interests.float().unbind(1)), weights, merge, scale)


def merge_cosines(cosines: Iterable[Tensor], weights: Tensor, merge: Merge, scale: float) -> Tensor:
    """The merge itself.

    Parameters
    ----------
    cosines : iterable of K tensors of shape (U, n)
        Of each interest with the items; overwritten.
    weights, merge, scale
        As in `merge_scores`, where they are checked.

    Returns
    -------
    Tensor of shape (U, n), of the cosines' type
    """
    total: Tensor | None = None
    weight_UK = weights.float()
    for k, cosine_Un in enumerate(cosines):
        weight_U1 = weight_UK[:, k, None]
        if merge == "max":
            score_Un = cosine_Un.masked_fill(weight_U1 <= 0, -torch.inf)
            total = score_Un if total is None else torch.maximum(total, score_Un)
            continue
        weighted_U1 = (weight_U1 if merge == "calibrated" else weight_U1 > 0).to(cosine_Un.dtype)
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
    check_scoring(user_interests, user_interests[..., 0], sample_vectors, "calibrated", scale)
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
    bonus: Bonus | None = None,
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
    bonus : (offsets, items, values), optional
        Ragged distinct items, and what is added to their score for the user; see :mod:`hymirec_model.habits`.
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
    settings = (user_interests, weights, item_vectors, n, merge, scale)
    return top_items_each(*settings, bonuses=[bonus], exclude=exclude, seed=seed)[0]


@torch.no_grad()
def top_items_each(
    user_interests: Tensor,
    weights: Tensor,
    item_vectors: Tensor,
    n: int,
    merge: Merge,
    scale: float,
    *,
    bonuses: Sequence[Bonus | None],
    exclude: tuple[Ints, Ints] | None = None,
    seed: int = 0,
) -> list[tuple[Tensor, Tensor]]:
    """What :func:`top_items` finds with each of several bonuses, from the same merged scores."""
    check_scoring(user_interests, weights, item_vectors, merge, scale)
    if not 1 <= n <= len(item_vectors):
        raise InputError(f"n: got {n}, allowed 1 to {len(item_vectors)}, the number of items.")
    check_weights(weights)
    order_n, place_of_n = (array.to(item_vectors.device) for array in tie_order(len(item_vectors), seed))
    shuffled_nd = item_vectors.float()[order_n]

    def cells(ragged: tuple[Ints, Ints], part: slice) -> tuple[tuple[Tensor, Tensor], slice]:
        user, item, entries = _ragged_rows(ragged, part, len(user_interests), len(item_vectors))
        return (user.to(order_n.device), place_of_n[item.to(order_n.device)]), entries

    found: list[list[tuple[Tensor, Tensor]]] = [[] for _ in bonuses]
    for part in chunks(len(user_interests), len(item_vectors)):
        merged_Un = merge_scores(user_interests[part], weights[part], shuffled_nd, merge, scale)
        for parts, bonus in zip(found, bonuses, strict=True):
            score_Un = merged_Un.clone() if len(bonuses) > 1 else merged_Un
            if bonus is not None:
                own, entries = cells(bonus[:2], part)
                score_Un[own] += torch.from_numpy(check_values(bonus)[entries]).to(score_Un.device)
            if exclude is not None:
                score_Un[cells(exclude, part)[0]] = -torch.inf
            place_Un, best_Un = top_columns(score_Un, n)
            parts.append((order_n[place_Un].masked_fill(place_Un < 0, -1), best_Un))
    return [(torch.cat([items for items, _ in parts]), torch.cat([best for _, best in parts])) for parts in found]


def check_ragged(ragged: tuple[Ints, Ints], n_users: int, n_items: int) -> tuple[Ints, Ints]:
    """Offsets and items as int64, or an InputError if they are not those of users and items."""
    offsets, items = np.asarray(ragged[0], np.int64), np.asarray(ragged[1], np.int64)
    if len(offsets) != n_users + 1 or offsets[-1] != len(items) or offsets[0] or (np.diff(offsets) < 0).any():
        raise InputError(
            f"exclude or bonus: got {len(offsets)} offsets over {len(items)} items, "
            f"expected {n_users + 1} ascending ones from 0 to {len(items)}."
        )
    if len(items) and not 0 <= items.min() <= items.max() < n_items:
        raise InputError(f"exclude or bonus: got items {items.min()} to {items.max()}, allowed 0 to {n_items - 1}.")
    return offsets, items


def check_values(bonus: Bonus) -> npt.NDArray[np.float32]:
    """Values of a bonus as float32, or an InputError if they are not one for each item, and finite."""
    values = np.asarray(bonus[2], np.float32)
    if len(values) != len(bonus[1]) or not np.isfinite(values).all():
        raise InputError(
            f"bonus: got {len(values)} values from {values.min(initial=0)} to {values.max(initial=0)} for "
            f"{len(bonus[1])} items, expected one for each item, and finite."
        )
    return values


def _ragged_rows(ragged: tuple[Ints, Ints], part: slice, n_users: int, n_items: int) -> tuple[Tensor, Tensor, slice]:
    """Row within the part and item of every ragged entry of the users in `part`, and where these entries stand."""
    offsets, items = check_ragged(ragged, n_users, n_items)
    bounds = offsets[part.start : part.stop + 1]
    users = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    entries = slice(int(bounds[0]), int(bounds[-1]))
    return torch.from_numpy(users), torch.from_numpy(items[entries]), entries


@lru_cache(maxsize=1)  # retrieval for one user at a time should not draw it anew
def tie_order(n_items: int, seed: int) -> tuple[Tensor, Tensor]:
    """The seeded permutation in which items of equal score stand: items by place, and place of each item."""
    order_n = torch.from_numpy(np.random.default_rng(seed).permutation(n_items))
    return order_n, order_n.argsort()


def chunks(n_users: int, cells_a_user: int) -> Iterator[slice]:
    """Slices of the users that have about CELLS cells each, and at least one user."""
    step = max(1, CELLS // max(1, cells_a_user))
    for start in range(0, max(n_users, 1), step):  # no users: one empty chunk
        yield slice(start, min(start + step, n_users))


def check_scoring(interests: Tensor, weights: Tensor, items: Tensor, merge: str, scale: float) -> None:
    """Raise an InputError unless shapes fit and merge and scale are allowed."""
    if interests.ndim != 3 or 0 in interests.shape[1:] or weights.shape != interests.shape[:2]:
        raise InputError(
            f"user_interests and weights: got shapes {tuple(interests.shape)} and {tuple(weights.shape)}, "
            "expected (users, interests >= 1, dimensions >= 1) and (users, interests)."
        )
    if items.ndim != 2 or items.shape[1] != interests.shape[2]:
        raise InputError(f"item_vectors: got shape {tuple(items.shape)}, expected (items, {interests.shape[2]}).")
    if merge not in get_args(Merge):
        raise InputError(f"merge: got {merge!r}, allowed {', '.join(get_args(Merge))}.")
    if not scale > 0:
        raise InputError(f"scale: got {scale}, must be > 0.")


def check_weights(weights: Tensor) -> None:
    """Raise an InputError unless every user has an interest of positive weight, and all weights are >= 0."""
    bad = ~(torch.isfinite(weights).all(1) & (weights >= 0).all(1) & (weights > 0).any(1))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise InputError(
            f"weights: {int(bad.sum())} users have weights that are negative, not finite or all zero "
            f"(the first is row {row}: {weights[row].tolist()}); every user needs one of positive weight."
        )
