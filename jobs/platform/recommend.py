"""Recommendations from an open release: of its users, and of anybody whose events are given.

Shapes: U users, K interests, n_items items, d dimensions. Nothing is read before it is needed, and item vectors
are mapped into memory: of them only the rows of candidates are read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from hymirec_model.errors import InputError, require
from jobs.platform import columns
from jobs.platform.manifest import ReleaseError
from jobs.platform.releases import Release
from jobs.platform.user_rows import UserRows

if TYPE_CHECKING:
    import torch

    from hymirec_model.habits import Bonus
    from hymirec_model.inference import UserModel
    from jobs.platform.given_events import Events

DEPTH = 10  # items fetched for an interest, by places of the list, at least
POOL = 5  # candidates that a diverse list is chosen from, by its places
_EXAMPLES = 5

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Recommended(NamedTuple):
    """One place of a list."""

    item_id: str
    title: str
    score: float
    """Merged score of the user's interests; comparable within a list only."""


@dataclass(frozen=True, slots=True)
class Interests:
    """What a list is made from."""

    vectors: Floats
    """(U, K, d): unit vectors, rounded to float16 as a release stores them."""
    weights: Floats
    """(U, K)."""
    bonus: Bonus
    """Offsets, each user's distinct item_index, and what these get on top of the merged score."""
    n_events: Ints
    """(U,): events of each user, those that are not kept included."""

    @property
    def seen(self) -> tuple[Ints, Ints]:
        """Offsets and items: user u's distinct item_index are ``items[offsets[u]:offsets[u + 1]]``."""
        return self.bonus[:2]


class Recommender:
    """What an open release needs to recommend; get it from `Release.recommender`.

    Parameters
    ----------
    release : Release
    """

    def __init__(self, release: Release) -> None:
        self._release = release
        self._retrieval: dict[str, Any] = release.manifest["retrieval"]

    @cached_property
    def vectors(self) -> npt.NDArray[np.float16]:
        """Item vectors of shape (n_items, d) in a memory map."""
        mapped: npt.NDArray[np.float16] = np.load(self._release.local() / "items" / "vectors.npy", mmap_mode="r")
        return mapped

    @cached_property
    def shift(self) -> Floats | None:
        """What is added to the score of each item, of shape (n_items,); None where that is nothing."""
        shift = np.asarray(np.load(self._release.local() / "index" / "shift.npy"), np.float32)
        return shift if shift.any() else None

    @cached_property
    def index(self) -> Any:
        """The ANN index over vectors and shift, in a memory map too."""
        from hymirec_model.index import load_index

        return load_index(self._release.local() / "index" / "index.faiss", memory_mapped=True)

    @cached_property
    def depth(self) -> int:
        """Items to fetch for an interest by places of the list; more where the index keeps few bits."""
        about = json.loads((self._release.local() / "index" / "index.json").read_text())
        return max(DEPTH, int(about["fetch"]))

    @cached_property
    def user_model(self) -> UserModel:
        """What turns events into interests, on the CPU."""
        return self.load_user_model()

    def load_user_model(self, device: torch.device | None = None) -> UserModel:
        """Load the release's recommender with the codes of all its items."""
        from hymirec_model.inference import UserModel

        folder = self._release.local()
        codes = self._items("codes", "generation")
        return UserModel.load(
            folder / "recommender",
            folder / "codebook",
            columns.matrix(codes["codes"].combine_chunks(), "items", "codes"),
            codes["generation"].to_numpy(),
            device,
        )

    def interests(self, user_ids: Sequence[str]) -> Interests:
        """Look up users of the release; reads their buckets, each once.

        Raises
        ------
        ReleaseError
            If the release lacks one of them; the message names some that it has.
        """
        require(not isinstance(user_ids, str), f"user_ids: seen {user_ids!r}; allowed: a sequence of user_ids")
        require(len(user_ids) > 0, "user_ids: seen none; allowed: one or more")
        for user_id in user_ids:
            require(isinstance(user_id, str), f"user_id: seen {user_id!r}; allowed: a string, as in the events")
        retrieval, files = self._retrieval, self._release.files("interests")
        inside = [name.removeprefix("interests/") for name in files]
        table = UserRows(
            self._release.warehouse, f"{self._release.folder}/interests", inside, retrieval["buckets"]
        ).read(user_ids, ["interests", "weights", "seen", "bonus", "n_events"])
        if table.num_rows < len(user_ids):
            self._refuse(sorted(set(user_ids) - set(table["user_id"].to_pylist())))
        k = self._release.manifest["shapes"]["interests"]
        seen, bonus = (cast(Any, table[name].combine_chunks()) for name in ("seen", "bonus"))
        flat, weights = (
            columns.matrix(table[name].combine_chunks(), "interests", name).astype(np.float32)
            for name in ("interests", "weights")
        )
        offsets = np.concatenate([[0], np.cumsum(seen.value_lengths().to_numpy())]).astype(np.int64)
        items = seen.flatten().to_numpy().astype(np.int64)
        values = bonus.flatten().to_numpy().astype(np.float32)
        return Interests(
            flat.reshape(len(flat), k, -1), weights, (offsets, items, values), table["n_events"].to_numpy()
        )

    def interests_of_events(
        self, batch: Sequence[Events], *, now: float | None = None, skip_unknown: bool = False
    ) -> Interests:
        """Infer interests from events, with the release's model and as export_interests does it.

        Parameters
        ----------
        batch : sequence of sequences of (item_id, seconds since 1970)
        now, skip_unknown
            See `Release.recommend_events`.

        Raises
        ------
        InputError
            See `Release.recommend_events`.
        """
        from hymirec_model.inference import calibration_sample, interest_weights
        from jobs.platform.given_events import histories_of

        require(len(batch) > 0, "events: seen those of no user; allowed: one or more users")
        release, model = self._release, self.user_model
        most = release.manifest["profile"]["histories"]["max_length"]
        histories, moments = histories_of(batch, self._index_of, now=now, skip_unknown=skip_unknown)
        n_events = np.diff(histories.offsets)
        histories = histories.newest(most)
        used, place = np.unique(histories.items, return_inverse=True)  # the other items' codes need no check
        model = replace(model, codes=model.codes[used], generations=model.generations[used])
        vectors = model.interests(replace(histories, items=place), now=moments)
        sample = self.vectors[calibration_sample(len(self.vectors))].astype(np.float32)
        rounded = vectors.astype(np.float16).astype(np.float32)
        weights = interest_weights(rounded, model.merge, model.scale, sample)
        return Interests(rounded, weights, model.bonus(histories), n_events)

    def rank(
        self, users: Interests, n: int, *, exclude_seen: bool, diversity: float
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Rank the items for users.

        Parameters
        ----------
        users : Interests
        n, exclude_seen, diversity
            See `Release.recommend`.

        Returns
        -------
        items : int64 array of shape (U, n), or (U, n_items) where that is less
            item_index, best first; -1 where there are no more.
        scores : float32 array of the same shape

        Raises
        ------
        InputError
            See `Release.recommend`.
        """
        from hymirec_model.ann_retrieval import search

        _check(n, diversity)
        n, n_items = min(n, len(self.vectors)), len(self.vectors)
        merge, scale = self._retrieval["merge"], self._retrieval["scale"]
        pool = n if diversity == 0 else min(POOL * n, n_items)
        items, scores = search(
            self.index,
            users.vectors,
            users.weights,
            self.vectors,
            pool,
            merge,
            scale,
            shift=self.shift,
            exclude=users.seen if exclude_seen else None,
            bonus=users.bonus,
            per_interest=min(self.depth * n, n_items),
        )
        if diversity == 0:
            return items, scores
        return self._diverse(items, scores, n, diversity, 1.0 if merge == "max" else scale)

    def lists(self, users: Interests, n: int, *, exclude_seen: bool, diversity: float) -> list[list[Recommended]]:
        """Rank as `rank` does, and name the items."""
        items, scores = self.rank(users, n, exclude_seen=exclude_seen, diversity=diversity)
        found = self.names.take(items[items >= 0])
        names = iter(zip(found["item_id"].to_pylist(), found["title"].to_pylist(), strict=True))
        return [
            [Recommended(*next(names), float(score)) for item, score in zip(*row, strict=True) if item >= 0]
            for row in zip(items, scores, strict=True)
        ]

    def _diverse(self, items: Ints, scores: Floats, n: int, diversity: float, unit: float) -> tuple[Ints, Floats]:
        import torch

        from hymirec_model.diversity import diversify
        from hymirec_model.retrieval import chunks
        from hymirec_model.tastes import tastes

        chosen_Un = np.empty((len(items), n), np.int64)
        for part in chunks(len(items), items.shape[1] * self.vectors.shape[1]):
            vectors = torch.from_numpy(self.vectors[np.maximum(items[part], 0)])
            likeness = tastes(vectors.float()).numpy()
            chosen_Un[part] = diversify(items[part], scores[part] / unit, likeness, n, diversity)
        absent_Un, place_Un = chosen_Un < 0, np.maximum(chosen_Un, 0)
        return (
            np.where(absent_Un, -1, np.take_along_axis(items, place_Un, 1)),
            np.where(absent_Un, -np.inf, np.take_along_axis(scores, place_Un, 1)).astype(np.float32),
        )

    @cached_property
    def names(self) -> Any:
        """Columns item_id and title of all items, an Arrow table in the order of item_index."""
        return self._items("item_id", "title")

    @cached_property
    def _index_of(self) -> dict[str, int]:
        """item_index of each item_id; about 100 bytes an item, needed for events only."""
        return {item_id: number for number, item_id in enumerate(self.names["item_id"].to_pylist())}

    def _items(self, *names: str) -> Any:
        return pq.read_table(self._release.local() / "items" / "part-00000.parquet", columns=list(names))

    def _refuse(self, missing: list[str]) -> None:
        release = self._release
        ids = _some_users(release)
        examples = ", ".join(ids[:: max(1, len(ids) // _EXAMPLES)][:_EXAMPLES])
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ReleaseError(
            f"user: seen {missing[0]!r}{more}; allowed: one of the {release.manifest['rows']['interests']:,} users of "
            f"release {release.id}, such as {examples}; for others, give their events to recommend_events"
        )


def _some_users(release: Release) -> list[str]:
    """Users of the first row group: a service may ask for unknown ones often, and is to read no more."""
    first = min(release.files("interests"))
    with release.warehouse.filesystem.open_input_file(release.warehouse.storage.path(release.folder, first)) as file:
        return [str(user) for user in pq.ParquetFile(file).read_row_group(0, ["user_id"])["user_id"].to_pylist()]


def _check(n: int, diversity: float) -> None:
    if not isinstance(n, int | np.integer) or n < 1:
        raise InputError(f"n: seen {n!r}; allowed: a whole number of items, 1 or more")
    if not isinstance(diversity, int | float | np.floating) or not 0 <= diversity <= 1:
        raise InputError(f"diversity: seen {diversity!r}; allowed: 0 (by relevance alone) to 1")
