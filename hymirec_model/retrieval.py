"""From merged scores to ranked lists, by exact retrieval.

Shapes: U users, K interests, n items, d dimensions. On top of the merge (merging.py) items may have a shift, by what
is popular (popularity_shift.py), and a user's own a bonus (habits.py).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hymirec_model.errors import InputError
from hymirec_model.habits import Bonus
from hymirec_model.merging import Merge, check_scoring, check_weights, merge_scores
from hymirec_model.ranking import top_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Ints = npt.NDArray[np.integer]
CELLS = 1 << 24  # scores held at once by the chunked functions: 64 MiB of float32, a few times over


@torch.no_grad()
def top_items(
    user_interests: Tensor,
    weights: Tensor,
    item_vectors: Tensor,
    n: int,
    merge: Merge = "lse",
    scale: float = 1.0,
    *,
    shift: Tensor | None = None,
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
    shift : Tensor of shape (n_items,) or (U, n_items), optional
        Added to the scores.
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
    items, scores = [], []
    for part in chunks(len(user_interests), len(item_vectors)):
        score_Un = merge_scores(user_interests[part], weights[part], catalogue.shuffled_nd, merge, scale)
        if shift is not None:
            score_Un += catalogue.shuffled(shift, part)
        if bonus is not None:
            user, place, entries = catalogue.cells(bonus[:2], part, len(user_interests))
            score_Un[user, place] += torch.from_numpy(check_values(bonus)[entries]).to(score_Un.device)
        if exclude is not None:
            user, place, _ = catalogue.cells(exclude, part, len(user_interests))
            score_Un[user, place] = -torch.inf
        place_Un, best_Un = top_columns(score_Un, n)
        items.append(catalogue.named(place_Un))
        scores.append(best_Un)
    return torch.cat(items), torch.cat(scores)


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
    shift: Tensor | None = None,
    seed: int = 0,
) -> tuple[Tensor, list[Tensor]]:
    """What :func:`top_items` finds with each of several bonuses, and without the items that these are for.

    The other items are ranked once: no bonus changes their order. So this takes little longer than one list.

    Parameters
    ----------
    user_interests, weights, item_vectors, n, merge, scale, shift, seed
        As in `top_items`.
    bonuses : sequence of (offsets, items, values)
        At least one, all of the same items.

    Returns
    -------
    others : Tensor of shape (U, n), int64
        As `top_items` with these items left out.
    found : list of Tensor of shape (U, n), int64
        With each bonus.

    Raises
    ------
    InputError
        As `top_items`.
    """
    catalogue = _Catalogue.of(user_interests, weights, item_vectors, n, merge, scale, seed)
    values = [torch.from_numpy(check_values(bonus)) for bonus in bonuses]
    others: list[Tensor] = []
    found: list[list[Tensor]] = [[] for _ in bonuses]
    for part in chunks(len(user_interests), len(item_vectors)):
        score_Un = merge_scores(user_interests[part], weights[part], catalogue.shuffled_nd, merge, scale)
        if shift is not None:
            score_Un += catalogue.shuffled(shift, part)
        user, place, entries = catalogue.cells(bonuses[0][:2], part, len(user_interests))
        own_score = score_Un[user, place]
        score_Un[user, place] = -torch.inf
        other_Un, other_score_Un = top_columns(score_Un, n)
        others.append(catalogue.named(other_Un))
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
            rank_Un = score_Uc.sort(dim=1, descending=True, stable=True).indices[:, :n]
            parts.append(catalogue.named(place_Uc.gather(1, rank_Un)))
    return torch.cat(others), [torch.cat(parts) for parts in found]


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

    def shuffled(self, shift: Tensor, part: slice) -> Tensor:
        """The shift of these users' items, or of everybody's, in the order of ties."""
        chosen = shift[part] if shift.ndim == 2 else shift
        if chosen.shape[-1] != len(self.item_of_place_n):
            raise InputError(
                f"shift: got shape {tuple(shift.shape)}, expected one number for each of "
                f"{len(self.item_of_place_n)} items."
            )
        return chosen.to(self.item_of_place_n.device)[..., self.item_of_place_n]

    def named(self, place_Un: Tensor) -> Tensor:
        """The items in these places, -1 where there is none."""
        return self.item_of_place_n[place_Un].masked_fill(place_Un < 0, -1)


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
