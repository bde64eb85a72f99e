"""From K interests to one score an item: the merge.

Shapes: U users, K interests, n items, d dimensions. Vectors are unit vectors; scores
are cosines (`max`) or natural logs (`lse`, `calibrated`), comparable within a user only.

    max         s(i) = max_k  u_k . e_i                             the paper's rule
    lse         s(i) = log sum_k exp(scale * u_k . e_i)             the score a mixture is trained on
    calibrated  s(i) = log sum_k w_k exp(scale * u_k . e_i)         w_k = 1 / Z_k, see `calibration_weights`

An interest of weight 0 does not exist: no rule counts it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from hymirec_model.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

Merge = Literal["max", "lse", "calibrated"]


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
