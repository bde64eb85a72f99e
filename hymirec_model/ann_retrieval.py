"""Retrieval through an ANN index: the nearest items of each interest, united and re-ranked exactly.

Shapes: U users, K interests, n items of a list, f items fetched for an interest, c candidates of a user, d
dimensions. Scores and their merge are those of :mod:`hymirec_model.merging`, hence those of training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hymirec_model.errors import InputError
from hymirec_model.habits import Bonus
from hymirec_model.merging import Merge, check_scoring, check_weights, merge_cosines
from hymirec_model.popularity_shift import shifted_dim, shifted_queries
from hymirec_model.retrieval import Ints, check_ragged, check_values, chunks, tie_order
from hymirec_model.vectors import float32_rows

Floats = npt.NDArray[np.floating]
FOUND_CELLS = 4  # memory of an item found for an interest, in numbers of float32, as places and keys come to it
ROUNDING = 1e-6  # cosines of float32 that differ by less may be those of one and the same vector


def search(
    index: Any,
    user_interests: Floats,
    weights: Floats,
    item_vectors: Floats,
    n: int,
    merge: Merge = "lse",
    scale: float = 1.0,
    *,
    shift: Floats | None = None,
    exclude: tuple[Ints, Ints] | None = None,
    bonus: Bonus | None = None,
    per_interest: int | None = None,
    seed: int = 0,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Top-n items of every user through an ANN index.

    A user's list does not depend on the other users in the call. Where what was fetched could not decide the
    list (fewer than n items are left of it, or equal scores go on beyond it), the user is searched again, twice
    as deep and in all lists of an inverted file.

    Parameters
    ----------
    index : faiss.Index
        Inner-product index whose ids are row numbers of `item_vectors`: over these, or with a shift over
        :func:`hymirec_model.popularity_shift.shifted_items` of both.
    user_interests : array of shape (U, K, d)
        Unit vectors.
    weights : array of shape (U, K)
        See `merge_scores`.
    item_vectors : array of shape (n_items, d), any float type
        Read by rows only, so a memory-mapped file will do.
    n : int
        Length of the lists, >= 1.
    merge, scale
        See `merge_scores`.
    shift : array of shape (n_items,), optional
        Added to the scores.
    exclude : (offsets, items), optional
        Ragged items to leave out: user u's are `items[offsets[u]:offsets[u + 1]]`. So many more are fetched.
    bonus : (offsets, items, values), optional
        As in `top_items`. These items are ranked whether the index finds them or not; where some lose by it, so many
        more are fetched.
    per_interest : int, optional
        Items fetched for each interest beside those, >= n; by default n. More give a merged list
        that is closer to the exact one, but for `merge="max"`, where n are enough.
    seed : int, default=0
        Order among equal scores, as in `top_items`.

    Returns
    -------
    items : int64 array of shape (U, n)
        Best first; -1 where exclusion leaves fewer than n items, or a graph index reaches no more.
    scores : float32 array of shape (U, n)
        -inf where the item is -1.

    Raises
    ------
    InputError
        As `top_items`; or if the index and the vectors disagree in size or dimension.
    """
    wanted = n if per_interest is None else per_interest
    if n < 1 or wanted < n:
        raise InputError(f"n and per_interest: got {n} and {wanted}, allowed n >= 1 and per_interest >= n.")
    size, dim = item_vectors.shape
    needed = (size, dim if shift is None else shifted_dim(dim))
    if (index.ntotal, index.d) != needed or (shift is not None and len(shift) != size):
        raise InputError(
            f"index holds {index.ntotal} vectors of {index.d} dimensions; allowed: {needed[0]} of {needed[1]}, for "
            f"item_vectors of shape {item_vectors.shape} {'without' if shift is None else 'with'} a shift: they belong "
            "to different days; take both from one release."
        )
    interest_UKd = np.ascontiguousarray(user_interests, dtype=np.float32)
    weight_UK = np.ascontiguousarray(weights, dtype=np.float32)
    check_scoring(torch.from_numpy(interest_UKd), torch.from_numpy(weight_UK), torch.empty(0, dim), merge, scale)
    check_weights(torch.from_numpy(weight_UK))
    n_users, n_interests, _ = interest_UKd.shape
    excluded, left_out_U = _pairs(exclude, n_users, index.ntotal)
    own = _Own.of(bonus, n_users, index.ntotal)
    task = _Search(index, item_vectors, shift, n, merge, scale, excluded, own, *tie_order(index.ntotal, seed))
    items = np.full((n_users, n), -1, np.int64)
    scores = np.full((n_users, n), -np.inf, np.float32)
    beside_U = left_out_U + own.lowered(n_users)
    deepest = wanted + int(beside_U.max(initial=0))
    for part in chunks(n_users, FOUND_CELLS * n_interests * deepest):  # large: faiss then multiplies matrices
        users = np.arange(part.start, part.stop)
        depth_U = np.minimum(wanted + beside_U[users] + 1, index.ntotal)  # one more tells where ties end
        deeper = False
        while len(users):
            found_UKf, clear_UKf = task.fetch(interest_UKd[users], weight_UK[users], depth_U, deeper)
            undecided_U = np.zeros(len(users), bool)
            for rows in chunks(len(users), (n_interests * int(depth_U.max()) + own.most(users)) * dim):
                some = users[rows]
                undecided_U[rows] = task.rank(
                    some, found_UKf[rows], clear_UKf[rows], interest_UKd[some], weight_UK[some], items, scores
                )
            short_U = (items[users] >= 0).sum(1) < np.minimum(n, index.ntotal - left_out_U[users])
            again_U = (short_U | undecided_U) & (depth_U < index.ntotal)
            if not deeper:
                again_U |= short_U  # deep enough, but not in all lists
            users, depth_U, deeper = users[again_U], np.minimum(2 * depth_U[again_U], index.ntotal), True
    return items, scores


@dataclass(frozen=True, slots=True)
class _Search:
    index: Any
    item_vectors: Floats
    shift: Floats | None
    n: int
    merge: Merge
    scale: float
    excluded: npt.NDArray[np.int64]
    own: _Own
    item_of_place: Tensor
    place_of_item: Tensor

    def fetch(
        self, interest_UKd: Floats, weight_UK: Floats, depth_U: Ints, exhaustive: bool
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The nearest `depth_U` items of each interest, -1 where there is none, and whether they are clearly nearer
        by the index' own scores than the last one, so that their equals were fetched too."""
        n_users, n_interests, _ = interest_UKd.shape
        query_UKd = interest_UKd if self.shift is None else shifted_queries(interest_UKd)
        options = {"params": _all_lists(self.index)} if exhaustive else {}
        near, found = self.index.search(query_UKd.reshape(-1, self.index.d), int(depth_U.max()), **options)
        found_UKf = found.reshape(n_users, n_interests, -1)
        beyond_UKf = np.arange(found_UKf.shape[2]) >= depth_U[:, None, None]
        found_UKf[beyond_UKf | (weight_UK <= 0)[..., None]] = -1
        near_UKf = near.reshape(found_UKf.shape)
        last_UK = near_UKf[np.arange(n_users), :, depth_U - 1]
        return found_UKf, near_UKf > last_UK[..., None] + ROUNDING

    def rank(
        self,
        users: Ints,
        found_UKf: npt.NDArray[np.int64],
        clear_UKf: npt.NDArray[np.bool_],
        interest_UKd: Floats,
        weight_UK: Floats,
        items: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32],
    ) -> npt.NDArray[np.bool_]:
        """Unite what was found, rank it exactly, and write the users' rows of `items` and `scores`; return
        whether an equal of a listed item may not have been fetched."""
        n_users, n_interests, _ = found_UKf.shape
        own_Uo = self.own.items(users)
        found_Uc = np.concatenate([found_UKf.reshape(n_users, -1), own_Uo], axis=1)
        clear_Uc = np.concatenate([clear_UKf.reshape(n_users, -1), np.ones(own_Uo.shape, bool)], axis=1)
        place_Uc, clear_Uc = self._candidates(users, found_Uc, clear_Uc)
        absent_Uc = place_Uc == self.index.ntotal
        item_Uc = self.item_of_place.numpy()[np.where(absent_Uc, 0, place_Uc)]
        vector_Ucd = float32_rows(self.item_vectors, item_Uc)
        # einsum adds up each product on its own, and float64 rounds off what differs between a loop's body and its
        # end: equal vectors have equal scores wherever they stand.
        cosines = (np.einsum("ucd,ud->uc", vector_Ucd, interest_UKd[:, k]) for k in range(n_interests))
        doubles = (torch.from_numpy(cosine_Uc.astype(np.float64)) for cosine_Uc in cosines)
        score_Uc = merge_cosines(doubles, torch.from_numpy(weight_UK), self.merge, self.scale).float()
        if self.shift is not None:
            score_Uc += torch.from_numpy(self.shift[item_Uc])
        score_Uc += torch.from_numpy(self.own.values(users, item_Uc))
        score_Uc = score_Uc.masked_fill(torch.from_numpy(absent_Uc), -torch.inf)
        # candidates stand in the order of ties already
        best_Un, order_Un = (part[:, : self.n].numpy() for part in score_Uc.sort(dim=1, descending=True, stable=True))
        item_Un = np.where(np.isneginf(best_Un), -1, np.take_along_axis(item_Uc, order_Un, 1))
        items[users, : item_Un.shape[1]], scores[users, : item_Un.shape[1]] = item_Un, best_Un
        return np.asarray(((item_Un >= 0) & ~np.take_along_axis(clear_Uc, order_Un, 1)).any(1))

    def _candidates(
        self, users: Ints, found_Uc: npt.NDArray[np.int64], clear_Uc: npt.NDArray[np.bool_]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Distinct items found, without those to leave out: their places, ascending, then the number of items; and
        whether one of the interests found them clearly."""
        n_items = self.index.ntotal
        key_Uc = 2 * np.where(found_Uc < 0, n_items, self.place_of_item.numpy()[found_Uc]) + ~clear_Uc
        key_Uc.sort(axis=1)  # of one item, what is clear comes first
        place_Uc = key_Uc >> 1
        dropped_Uc = np.zeros(place_Uc.shape, bool)
        dropped_Uc[:, 1:] = place_Uc[:, 1:] == place_Uc[:, :-1]
        if len(self.excluded):
            item_Uc = self.item_of_place.numpy()[np.minimum(place_Uc, n_items - 1)]
            pair_Uc = users[:, None] * n_items + item_Uc
            at_Uc = np.searchsorted(self.excluded, pair_Uc).clip(max=len(self.excluded) - 1)
            dropped_Uc |= self.excluded[at_Uc] == pair_Uc
        key_Uc[dropped_Uc] = 2 * n_items
        key_Uc.sort(axis=1)
        width = max(1, int((key_Uc < 2 * n_items).sum(1).max(initial=0)))
        return key_Uc[:, :width] >> 1, key_Uc[:, :width] % 2 == 0


@dataclass(frozen=True, slots=True)
class _Own:
    """Items whose score is raised or lowered."""

    n_items: int
    offsets: Ints
    pairs: Ints
    """user * n_items + item, ascending."""
    value: npt.NDArray[np.float32]

    @classmethod
    def of(cls, bonus: Bonus | None, n_users: int, n_items: int) -> _Own:
        if bonus is None:
            bonus = (np.zeros(n_users + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
        offsets, items = check_ragged(bonus[:2], n_users, n_items)
        pairs = np.repeat(np.arange(n_users), np.diff(offsets)) * n_items + items
        order = np.argsort(pairs)
        return cls(n_items, offsets, pairs[order], check_values(bonus)[order])

    def lowered(self, n_users: int) -> Ints:
        """(U,) items whose score is lowered."""
        return np.bincount(self.pairs[self.value < 0] // self.n_items, minlength=n_users)

    def most(self, users: Ints) -> int:
        """Most items that one of these users has."""
        return int((self.offsets[users + 1] - self.offsets[users]).max(initial=0))

    def items(self, users: Ints) -> Ints:
        """(U, o) items of these users, -1 where one has fewer."""
        lengths = self.offsets[users + 1] - self.offsets[users]
        place = np.arange(self.most(users))
        inside = place < lengths[:, None]
        rows = np.where(inside, self.offsets[users][:, None] + place, 0)
        return np.where(inside, self.pairs[rows] % self.n_items, -1) if rows.size else rows

    def values(self, users: Ints, item_Uc: Ints) -> npt.NDArray[np.float32]:
        """(U, c) bonus of each item."""
        if not len(self.pairs):
            return np.zeros(item_Uc.shape, np.float32)
        pair_Uc = users[:, None] * self.n_items + item_Uc
        at_Uc = np.searchsorted(self.pairs, pair_Uc).clip(max=len(self.pairs) - 1)
        return np.where(self.pairs[at_Uc] == pair_Uc, self.value[at_Uc], np.float32(0))


def _pairs(
    exclude: tuple[Ints, Ints] | None, n_users: int, n_items: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distinct pairs to leave out as sorted numbers user * n_items + item, and their number for each user."""
    if exclude is None:
        return np.zeros(0, np.int64), np.zeros(n_users, np.int64)
    offsets, items = check_ragged(exclude, n_users, n_items)
    pairs = np.unique(np.repeat(np.arange(n_users), np.diff(offsets)) * n_items + items)
    return pairs, np.bincount(pairs // n_items, minlength=n_users)


def _all_lists(index: Any) -> Any:
    """Search parameters that make an inverted file exact; other types have none."""
    import faiss

    if not isinstance(index, faiss.IndexIVF):
        return None
    params = faiss.SearchParametersIVF()
    params.nprobe = index.nlist
    return params
