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
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

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
    catalogue = _Catalogue.of(user_interests, weights, item_vectors, n, merge, scale, seed)
    found = []
    for part in chunks(len(user_interests), len(item_vectors)):
        score_Un = merge_scores(user_interests[part], weights[part], catalogue.shuffled_nd, merge, scale)
        if bonus is not None:
            user, place, entries = catalogue.cells(bonus[:2], part, len(user_interests))
            score_Un[user, place] += torch.from_numpy(check_values(bonus)[entries]).to(score_Un.device)
        if exclude is not None:
            user, place, _ = catalogue.cells(exclude, part, len(user_interests))
            score_Un[user, place] = -torch.inf
        found.append(catalogue.named(*top_columns(score_Un, n)))
    return torch.cat([items for items, _ in found]), torch.cat([scores for _, scores in found])


@torch.no_grad()
def top_items_each(
    user_interests: Tensor,
    weights: Tensor,
    item_vectors: Tensor,
    n: int,
    merge: Merge,
    scale: float,
    *,
    bonuses: Sequence[Bonus],
    seed: int = 0,
) -> list[Tensor]:
    """The items that :func:`top_items` finds with each of several bonuses, (U, n) each, for little more than with one.

    All other items are ranked once: no bonus changes their order.

    Parameters
    ----------
    user_interests, weights, item_vectors, n, merge, scale, seed
        As in `top_items`.
    bonuses : sequence of (offsets, items, values)
        At least one, all of the same items.

    Raises
    ------
    InputError
        As `top_items`.
    """
    catalogue = _Catalogue.of(user_interests, weights, item_vectors, n, merge, scale, seed)
    values = [torch.from_numpy(check_values(bonus)) for bonus in bonuses]
    found: list[list[Tensor]] = [[] for _ in bonuses]
    for part in chunks(len(user_interests), len(item_vectors)):
        score_Un = merge_scores(user_interests[part], weights[part], catalogue.shuffled_nd, merge, scale)
        user, place, entries = catalogue.cells(bonuses[0][:2], part, len(user_interests))
        own_score = score_Un[user, place]
        score_Un[user, place] = -torch.inf
        other_Un, other_score_Un = top_columns(score_Un, n)
        counts = torch.bincount(user, minlength=len(score_Un))
        column = torch.arange(len(user), device=user.device) - (counts.cumsum(0) - counts)[user]
        own_Uo = torch.full((len(score_Un), int(counts.max()) if len(user) else 0), -1, device=user.device)
        own_Uo[user, column] = place
        # Candidates stand in the order of ties.
        place_Uc, order_Uc = torch.cat([other_Un, own_Uo], 1).sort(1)
        for parts, value in zip(found, values, strict=True):
            own_score_Uo = torch.full(own_Uo.shape, -torch.inf, device=user.device)
            own_score_Uo[user, column] = own_score + value[entries].to(user.device)
            score_Uc = torch.cat([other_score_Un, own_score_Uo], 1).gather(1, order_Uc)
            best_Un, rank_Un = (ranked[:, :n] for ranked in score_Uc.sort(dim=1, descending=True, stable=True))
            parts.append(catalogue.named(place_Uc.gather(1, rank_Un), best_Un)[0])
    return [torch.cat(parts) for parts in found]


class _Catalogue(NamedTuple):
    """Item vectors in the order of ties."""

    shuffled_nd: Tensor
    item_of_place_n: Tensor
    place_of_item_n: Tensor

    @classmethod
    def of(
        cls,
        user_interests: Tensor,
        weights: Tensor,
        item_vectors: Tensor,
        n: int,
        merge: Merge,
        scale: float,
        seed: int,
    ) -> _Catalogue:
        """Check what was given, and shuffle the items."""
        check_scoring(user_interests, weights, item_vectors, merge, scale)
        if not 1 <= n <= len(item_vectors):
            raise InputError(f"n: got {n}, allowed 1 to {len(item_vectors)}, the number of items.")
        check_weights(weights)
        order_n, place_n = (array.to(item_vectors.device) for array in tie_order(len(item_vectors), seed))
        return cls(item_vectors.float()[order_n], order_n, place_n)

    def cells(self, ragged: tuple[Ints, Ints], part: slice, n_users: int) -> tuple[Tensor, Tensor, slice]:
        """Row within the part and place of every ragged entry of its users, and where these entries stand."""
        offsets, items = check_ragged(ragged, n_users, len(self.shuffled_nd))
        bounds = offsets[part.start : part.stop + 1]
        users = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        entries, device = slice(int(bounds[0]), int(bounds[-1])), self.shuffled_nd.device
        item = torch.from_numpy(items[entries]).to(device)
        return torch.from_numpy(users).to(device), self.place_of_item_n[item], entries

    def named(self, place_Un: Tensor, score_Un: Tensor) -> tuple[Tensor, Tensor]:
        """The items in these places, -1 where there is none, beside their scores."""
        return self.item_of_place_n[place_Un].masked_fill(place_Un < 0, -1), score_Un


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
