"""The user side at work: stored codes and histories → K interests a user.

Shapes: U users, K interests, n items, L code bytes an item, d item dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hymirec_model.code_table import CodeTable
from hymirec_model.codebook import ResidualCodebook
from hymirec_model.errors import InputError, require
from hymirec_model.habits import Bonus, bonus_of
from hymirec_model.histories import Histories, Ints, newest_batch
from hymirec_model.hymirec import HyMiRec
from hymirec_model.merging import Merge, calibration_weights
from hymirec_model.popularity_shift import PopularityShift

BATCH = 32  # users, always: on the CPU the size of a product decides how its sums are rounded
GPU_BATCH = 512
SHORTEST = 32  # columns that a short history is padded to; longer ones to twice as many, four times, …
CALIBRATION_ITEMS = 512  # sampled items that serve to compare a user's interests

Floats = npt.NDArray[np.float32]


def infer(
    model: HyMiRec,
    code_table: CodeTable,
    codes: npt.NDArray[np.integer],
    generations: npt.NDArray[np.integer],
    histories: Histories,
    users: Ints,
    now: Ints | None = None,
    device: torch.device | None = None,
) -> Floats:
    """Interests of users, from the codes of their newest events.

    On one CPU thread a user's interests do not depend, to the bit, on the other users: batches have one size, and the
    columns of a batch follow from the length of a history alone.

    Parameters
    ----------
    model : HyMiRec
    code_table : CodeTable
        The codebook's decoder.
    codes : integer array of shape (n, L)
    generations : integer array of shape (n,)
    histories : Histories
    users : int array of shape (U,)
        User numbers.
    now : int array of shape (U,), optional
        Seconds since 1970 from which ages are counted; default: see :func:`hymirec_model.histories.newest_batch`.
    device : torch.device, optional
        Default: where the model is.

    Returns
    -------
    float32 array of shape (U, K, d)
        Unit vectors.

    Raises
    ------
    InputError
        If codes are not of this codebook, or an item has none, or book and model differ in dimensions.
    """
    where = device or next(model.parameters()).device
    require(
        code_table.dim == model.dim,
        f"codebook: seen vectors of {code_table.dim} dimensions; allowed: {model.dim}, the recommender's",
    )
    known, which = code_table.checked(codes, generations)
    newest = int(histories.items.max(initial=-1))
    if newest >= len(known):
        raise InputError(
            f"histories: seen item_index {newest}; allowed: 0 to {len(known) - 1}, the items that have "
            "codes; run encode_items for this day again"
        )
    model, code_table = model.to(where).eval(), code_table.to(where)
    code_nL, generation_n = torch.from_numpy(known).to(where), torch.from_numpy(which).to(where)
    interests = np.empty((len(users), model.config.interests, model.dim), np.float32)
    for columns, rows in _batches(histories, users, model.config.history, BATCH if where.type == "cpu" else GPU_BATCH):
        moments = None if now is None else now[rows]
        inputs = newest_batch(histories, users[rows], columns, moments).to(where)
        with torch.inference_mode():
            history_BNd = code_table(code_nL[inputs.items_BN], generation_n[inputs.items_BN])
            _, interest_BKd = model(history_BNd, inputs.ages_BN, inputs.mask_BN)
        interests[rows] = interest_BKd.float().cpu().numpy()
    return interests


def _batches(histories: Histories, users: Ints, history: int, size: int) -> Iterator[tuple[int, Ints]]:
    """Columns and ``size`` places in ``users`` of each batch; the last of a kind is filled up by repeating it."""
    lengths = np.minimum(np.diff(histories.offsets)[users], history)
    doublings = np.ceil(np.log2(np.maximum(lengths, SHORTEST) / SHORTEST)).astype(np.int64)
    for doubling in np.unique(doublings):
        places = np.flatnonzero(doublings == doubling)
        for start in range(0, len(places), size):
            batch = places[start : start + size]
            yield min(history, SHORTEST << int(doubling)), np.resize(batch, size) if len(batch) < size else batch


def interest_weights(interests: Floats, merge: Merge, scale: float, item_sample: Floats) -> Floats:
    """Weights of interests for the merge: 1 each, but for ``calibrated`` what puts them on one scale.

    Parameters
    ----------
    interests : float32 array of shape (U, K, d)
    merge : {"max", "lse", "calibrated"}
    scale : float
    item_sample : float32 array of shape (s, d)
        See :func:`calibration_sample`.

    Returns
    -------
    float32 array of shape (U, K)
    """
    if merge != "calibrated":
        return np.ones(interests.shape[:2], np.float32)
    weights = np.ones(interests.shape[:2], np.float32)
    for start in range(0, len(interests), BATCH):  # always as many at once, see BATCH
        part = interests[start : start + BATCH]
        padded = np.resize(part, (BATCH, *part.shape[1:]))
        found = calibration_weights(torch.from_numpy(padded), torch.from_numpy(item_sample), scale)
        weights[start : start + BATCH] = found[: len(part)].numpy()
    return weights


def calibration_sample(n_items: int, seed: int = 0) -> Ints:
    """Sorted numbers of the items that :func:`interest_weights` compares interests on."""
    chosen = np.random.default_rng(seed).permutation(n_items)[:CALIBRATION_ITEMS]
    return np.sort(chosen)


@dataclass(frozen=True)
class UserModel:
    """Everything that turns a history into interests."""

    model: HyMiRec
    code_table: CodeTable
    codes: npt.NDArray[np.integer]
    """(n, L)."""
    generations: npt.NDArray[np.integer]
    """(n,)."""

    @classmethod
    def load(
        cls,
        recommender: Path,
        codebook: Path,
        codes: npt.NDArray[np.integer],
        generations: npt.NDArray[np.integer],
        device: torch.device | None = None,
    ) -> UserModel:
        """Load the folders of a recommender and of its codebook."""
        model = HyMiRec.load(recommender).to(device or torch.device("cpu"))
        return cls(model, ResidualCodebook.load(codebook).to_module(), codes, generations)

    @property
    def merge(self) -> Merge:
        """How K cosines become one score."""
        return self.model.config.merge

    @property
    def scale(self) -> float:
        """Factor on the cosines in the merge."""
        return float(self.model.scale.detach())

    def bonus(self, histories: Histories) -> Bonus:
        """What is added to the merged score of the users' own items; see :mod:`hymirec_model.habits`."""
        return bonus_of(histories, self.model.habits, self.merge, self.scale)

    def shift(self, log: PopularityShift, now: int) -> Floats:
        """What is added to the merged score of every item at a moment; see :mod:`hymirec_model.popularity_shift`."""
        return log.of_items(now, self.model.shift, self.merge, self.scale)

    def interests(self, histories: Histories, users: Ints | None = None, now: Ints | None = None) -> Floats:
        """Interests of the users (default: all), of shape (U, K, d); see :func:`infer`."""
        chosen = np.arange(len(histories)) if users is None else users
        return infer(self.model, self.code_table, self.codes, self.generations, histories, chosen, now)
