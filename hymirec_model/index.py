"""The ANN index over item vectors: the cheapest type and setting that reaches a recall within a memory budget.

Cosine similarity is the inner product of unit vectors. Choosing by a stopwatch would give another index on
another day; the cost here is counted instead: inner products a query, times a factor for how they reach
memory. So the same vectors and queries give the same index, byte for byte, and the measured time is reported
beside it.

Vectors are read a shard at a time, so a memory-mapped file larger than memory will do; only the index itself is held.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hymirec_model import index_types
from hymirec_model.config import IndexConfig
from hymirec_model.errors import InputError
from hymirec_model.index_types import TYPES, IndexType
from hymirec_model.vectors import check_vectors, float32_rows

Floats = npt.NDArray[np.floating]

TIE = 1e-6  # an item whose score is this close to the last exact one is as good (many products share one text)
SHARD = 1 << 16  # vectors read at once
CALL = 8  # queries of a timed call: the interests of a user
_CELLS = 1 << 24  # numbers held at once when what was found is scored exactly
_WRITTEN = 16 << 20  # bytes of an index handed to its file at once


@dataclass(frozen=True, slots=True)
class Trial:
    """One index type and setting, tried on the queries."""

    type: str
    setting: dict[str, int]
    recall: float
    """Share of the exact nearest neighbours among what is fetched, ties counted as found."""
    cost: float
    """Weighted inner products a query; decides among those that reach the target."""
    microseconds: float
    """Measured CPU time a query on one thread, CALL queries a call; for information."""


@dataclass(frozen=True, slots=True)
class IndexReport:
    """How an index was chosen."""

    chosen: Trial
    tried: tuple[Trial, ...]
    n_items: int
    dim: int
    neighbours: int
    fetch: int
    """Items to fetch for each one wanted, before they are ranked exactly."""
    target_recall: float
    n_queries: int
    bytes: int

    def facts(self) -> dict[str, Any]:
        """Everything that a rerun reproduces: the report without the measured times."""
        about = asdict(self)
        for trial in [about["chosen"], *about["tried"]]:
            del trial["microseconds"]
        return about


def build_index(vectors: Floats, queries: Floats, config: IndexConfig) -> tuple[Any, IndexReport]:
    """Build the cheapest index of `config.types` that reaches `config.target_recall` on the queries.

    Parameters
    ----------
    vectors : array of shape (n, d), any float type
        Unit vectors; row numbers become the ids. Read a shard at a time.
    queries : array of shape (q, d)
        Unit vectors, such as users' interests.
    config : IndexConfig

    Returns
    -------
    index : faiss.Index
    report : IndexReport

    Raises
    ------
    InputError
        If there are no vectors or queries, they are not unit vectors of one dimension, no listed type fits into
        `config.memory_mb`, or none that fits reaches the target.
    """
    asked = check_vectors(queries, vectors.shape[1] if vectors.ndim == 2 else None)
    if not len(vectors) or not len(asked):
        raise InputError(f"got {len(vectors)} vectors and {len(asked)} queries, at least one of each is required.")
    neighbours = min(config.neighbours, len(vectors))
    kinds = _kinds_that_fit(config, *vectors.shape)
    with _one_thread() as threads:
        best, tried = _cheapest(kinds, vectors, asked, neighbours, config, threads)
    if best is None:
        seen = ", ".join(f"{t.type} {t.setting} {t.recall:.4f}" for t in tried)
        raise InputError(
            f"no index reaches recall@{neighbours} {config.target_recall} (seen: {seen}): "
            "add flat to index.types, allow more index.memory_mb, or lower index.target_recall."
        )
    chosen, index = best
    index_types.apply(TYPES[chosen.type], index, chosen.setting.get(TYPES[chosen.type].setting, 0))
    report = IndexReport(
        chosen=chosen,
        tried=tuple(tried),
        n_items=len(vectors),
        dim=vectors.shape[1],
        neighbours=neighbours,
        fetch=TYPES[chosen.type].fetch,
        target_recall=config.target_recall,
        n_queries=len(asked),
        bytes=_serialised_bytes(index),
    )
    return index, report


def fill(index: Any, vectors: Floats) -> Any:
    """Add vectors of shape (n, d) to a trained index, a shard at a time, and return it; ids go on from those there."""
    with _one_thread():
        for _, shard in shards(vectors):
            index.add(shard)
    return index


def fill_in_parts(kind: IndexType, empty: Any, vectors: Floats, threads: int) -> Any:
    """The index of one type over vectors of shape (n, d), from a trained empty one, which is used up.

    Each thread fills an index of its own with vectors that follow one another; merged in their order, these make the
    index that one thread would have made, byte for byte. A graph is built by one thread.
    """
    import faiss

    step = SHARD * max(1, math.ceil(len(vectors) / (SHARD * threads))) if index_types.merges(kind) else len(vectors)
    starts = range(0, len(vectors), step)
    parts = [empty, *(faiss.clone_index(empty) for _ in starts[1:])]
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(lambda part, start: fill(part, vectors[start : start + step]), parts, starts))
    for part, start in zip(parts[1:], starts[1:], strict=True):
        parts[0].merge_from(part, start) if kind.inverted else parts[0].merge_from(part)
    return index_types.packed(kind, parts[0])


def shards(vectors: Floats) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """First row and checked float32 rows of each shard."""
    for start in range(0, len(vectors), SHARD):
        yield start, check_vectors(np.asarray(vectors[start : start + SHARD], np.float32))


def exact_floor(vectors: Floats, queries: Floats, neighbours: int) -> npt.NDArray[np.float32]:
    """Score of each query's last exact neighbour, of shape (q,); vectors are read a shard at a time."""
    best = np.full((len(queries), 0), -np.inf, np.float32)
    for _, shard in shards(vectors):
        for start in range(0, len(shard), SHARD // 8):
            best = np.concatenate([best, queries @ shard[start : start + SHARD // 8].T], axis=1)
            if best.shape[1] > neighbours:
                best = -np.partition(-best, neighbours - 1, axis=1)[:, :neighbours]
    floor: npt.NDArray[np.float32] = best.min(axis=1)
    return floor


def save_index(index: Any, path: Path) -> None:
    """Write an index in faiss' own format."""
    import faiss

    with path.open("wb") as file:  # faiss' own file ends a full disk in half a line on stderr
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write, _WRITTEN))  # type: ignore[attr-defined]


def load_index(path: Path, memory_mapped: bool = False) -> Any:
    """Read an index that `save_index` wrote.

    Parameters
    ----------
    path : Path
    memory_mapped : bool, default=False
        Read what a search needs when it needs it, instead of all of it now: the file must stay as it is.

    Raises
    ------
    InputError
        If the file is missing or is not an index.
    """
    import faiss

    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if memory_mapped else 0)
    except RuntimeError as error:
        raise InputError(f"{path}: not a faiss index ({str(error).splitlines()[0][:120]}): build it again.") from error


def tie_aware_recall(scores: Floats, floor: Floats) -> float:
    """Mean share of k places filled with an item at least as good as the k-th exact one.

    Parameters
    ----------
    scores : array of shape (q, k)
        Exact scores of the items found; -inf or the lowest float where none was.
    floor : array of shape (q,)
        Score of the k-th item of exact search.
    """
    return float((scores >= floor[:, None] - TIE).mean())


def _cheapest(
    kinds: list[IndexType], vectors: Floats, queries: Floats, neighbours: int, config: IndexConfig, threads: int
) -> tuple[tuple[Trial, Any] | None, list[Trial]]:
    """The cheapest trial that reaches the target with its index, None where none does, and all trials; a type that
    cannot become cheaper is not built."""
    n = len(vectors)
    floor = exact_floor(vectors, queries, neighbours)
    centres: npt.NDArray[np.float32] = np.empty((0, vectors.shape[1]), np.float32)
    tried: list[Trial] = []
    best: tuple[Trial, Any] | None = None
    for kind in sorted(kinds, key=lambda kind: kind.least_cost(kind.ladder(n, neighbours)[0], n, neighbours)):
        index = None
        for value in kind.ladder(n, neighbours):
            if best is not None and kind.least_cost(value, n, neighbours) >= best[0].cost:
                break
            if kind.inverted and not len(centres):
                centres = index_types.train_lists(vectors, config.seed)
            if index is None:
                index = fill_in_parts(kind, index_types.train(kind, vectors, config.seed, centres), vectors, threads)
            trial = _try(kind, value, index, vectors, queries, floor, neighbours)
            tried.append(trial)
            if trial.recall >= config.target_recall:
                if best is None or trial.cost < best[0].cost:
                    best = (trial, index)
                break
            if best is not None and trial.cost >= best[0].cost:
                break
    return best, tried


def _kinds_that_fit(config: IndexConfig, n: int, dim: int) -> list[IndexType]:
    kinds = [TYPES[name] for name in config.types]
    if config.memory_mb is None:
        return kinds
    fitting = [kind for kind in kinds if kind.size(n, dim) <= 1e6 * config.memory_mb]
    if not fitting:
        sizes = ", ".join(f"{kind.name} {kind.size(n, dim) / 1e6:,.0f} MB" for kind in kinds)
        raise InputError(
            f"no index of {n:,} vectors fits into index.memory_mb {config.memory_mb:,.0f} (seen: {sizes}): allow more, "
            "or add ivf-int8 or ivf-pq to index.types."
        )
    return fitting


def _try(
    kind: IndexType, value: int, index: Any, vectors: Floats, queries: Floats, floor: Floats, neighbours: int
) -> Trial:
    index_types.apply(kind, index, value)
    index_types.reset(kind)
    fetched = min(neighbours * kind.fetch, len(vectors))
    start = time.process_time()
    found = np.concatenate([index.search(queries[i : i + CALL], fetched)[1] for i in range(0, len(queries), CALL)])
    seconds = time.process_time() - start
    cost = kind.search_cost(index_types.products(kind, index, len(queries)), neighbours)
    setting = ({"lists": index.nlist} if kind.inverted else {}) | ({kind.setting: value} if kind.setting else {})
    recall = tie_aware_recall(best_scores(vectors, queries, found, neighbours), floor)
    return Trial(kind.name, setting, recall, cost, 1e6 * seconds / len(queries))


def best_scores(vectors: Floats, queries: Floats, found: npt.NDArray[np.int64], neighbours: int) -> Floats:
    """Exact scores of the best `neighbours` of what was found, of shape (q, neighbours)."""
    step = max(1, _CELLS // (found.shape[1] * vectors.shape[1]))
    kept = []
    for start in range(0, len(queries), step):
        ids = found[start : start + step]
        rows = float32_rows(vectors, ids.clip(0))
        scores = np.where(ids < 0, -np.inf, np.einsum("qfd,qd->qf", rows, queries[start : start + step]))
        kept.append(-np.partition(-scores, neighbours - 1, axis=1)[:, :neighbours])
    return np.concatenate(kept)


@contextmanager
def _one_thread() -> Iterator[int]:
    """Keep faiss to one thread, and tell how many it had: threads add to a graph in a race and sum in another order, so
    index and recall would differ from run to run."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield threads
    finally:
        faiss.omp_set_num_threads(threads)


def _serialised_bytes(index: Any) -> int:
    import faiss

    writer = faiss.VectorIOWriter()
    faiss.write_index(index, writer)
    return int(writer.data.size())
