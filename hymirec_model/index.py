"""The ANN index over item vectors: the cheapest type and setting that reaches the recall asked for.

Cosine similarity is the inner product of unit vectors. Choosing by a stopwatch would give another index on
another day; the cost here is counted instead: inner products a query, times a factor for how they reach
memory. So the same vectors and queries give the same index, byte for byte, and the measured time is reported
beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hymirec_model.config import IndexConfig
from hymirec_model.errors import InputError
from hymirec_model.vectors import check_vectors

Floats = npt.NDArray[np.floating]

# Cost of one inner product: a scan of the whole matrix runs as one matrix product, lists of an inverted file
# are read in order, a graph jumps through memory.
COST = {"flat": 1.0, "ivf": 2.5, "hnsw": 16.0}
TIE = 1e-6  # an item whose score is this close to the last exact one is as good (many products share one text)
HNSW_LINKS, HNSW_BUILD = 16, 80
IVF_TRAIN = 64  # vectors read a list when the lists are trained


@dataclass(frozen=True, slots=True)
class Trial:
    """One index type and setting, tried on the queries."""

    type: str
    setting: dict[str, int]
    recall: float
    """Share of the exact nearest neighbours found, ties counted as found."""
    cost: float
    """Weighted inner products a query; decides among those that reach the target."""
    microseconds: float
    """Measured CPU time a query on one thread, all queries in one call; for information."""


@dataclass(frozen=True, slots=True)
class IndexReport:
    """How an index was chosen."""

    chosen: Trial
    tried: tuple[Trial, ...]
    n_items: int
    dim: int
    neighbours: int
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
    vectors : array of shape (n, d)
        Unit vectors; row numbers become the ids.
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
        If there are no vectors or queries, they are not unit vectors of one dimension, or no listed type
        reaches the target.
    """
    rows, asked = (
        check_vectors(vectors),
        check_vectors(queries, vectors.shape[1] if vectors.ndim == 2 else None),
    )
    if not len(rows) or not len(asked):
        raise InputError(f"got {len(rows)} vectors and {len(asked)} queries, at least one of each is required.")
    neighbours = min(config.neighbours, len(rows))
    exact = _flat(rows)
    with _one_thread():
        floor = exact.search(asked, neighbours)[0][:, -1]

    tried: list[Trial] = []
    best: tuple[Trial, Any] | None = None
    for kind in sorted(
        config.types, key=lambda kind: _least_cost(kind, _ladder(kind, len(rows), neighbours)[0], len(rows))
    ):
        index = exact if kind == "flat" else None
        for setting in _ladder(kind, len(rows), neighbours):
            if best is not None and _least_cost(kind, setting, len(rows)) >= best[0].cost:
                break
            if index is None:
                index = _ivf(rows, setting["lists"], config.seed) if kind == "ivf" else _hnsw(rows)
            trial = _try(kind, setting, index, asked, floor, neighbours)
            tried.append(trial)
            if trial.recall >= config.target_recall:
                if best is None or trial.cost < best[0].cost:
                    best = (trial, index)
                break
    if best is None:
        seen = ", ".join(f"{t.type} {t.setting} {t.recall:.4f}" for t in tried)
        raise InputError(
            f"no index reaches recall@{neighbours} {config.target_recall} (seen: {seen}): "
            "add flat to index.types or lower index.target_recall."
        )
    chosen, index = best
    _apply(index, chosen)
    report = IndexReport(
        chosen=chosen,
        tried=tuple(tried),
        n_items=len(rows),
        dim=rows.shape[1],
        neighbours=neighbours,
        target_recall=config.target_recall,
        n_queries=len(asked),
        bytes=_serialised_bytes(index),
    )
    return index, report


def save_index(index: Any, path: Path) -> None:
    """Write an index in faiss' own format."""
    import faiss

    faiss.write_index(index, str(path))


def load_index(path: Path) -> Any:
    """Read an index that `save_index` wrote.

    Raises
    ------
    InputError
        If the file is missing or is not an index.
    """
    import faiss

    try:
        return faiss.read_index(str(path))
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


def _ladder(kind: str, n: int, neighbours: int) -> list[dict[str, int]]:
    """Settings of a type, from the cheapest search to the dearest."""
    if kind == "flat":
        return [{}]
    lists = max(1, min(round(4 * math.sqrt(n)), n // 39))  # faiss asks for 39 training vectors a list
    value, limit = (4, lists) if kind == "ivf" else (max(64, neighbours), max(2048, 8 * neighbours))
    values = []
    while value < limit:
        values.append(value)
        value = math.ceil(value * 1.5)
    values.append(limit)
    return [{"lists": lists, "probes": value} if kind == "ivf" else {"ef": value} for value in values]


def _least_cost(kind: str, setting: dict[str, int], n: int) -> float:
    """Cost that a setting has at least: one that cannot win is not tried, and its index not built."""
    least = {"flat": n, "ivf": setting.get("lists", 0), "hnsw": 4 * setting.get("ef", 0)}
    return COST[kind] * least[kind]


def _try(kind: str, setting: dict[str, int], index: Any, queries: Floats, floor: Floats, neighbours: int) -> Trial:
    import faiss

    counters: Any = faiss.cvar
    stats = {"ivf": counters.indexIVF_stats, "hnsw": counters.hnsw_stats}.get(kind)
    _apply(index, Trial(kind, setting, 0, 0, 0))
    if stats is not None:
        stats.reset()
    start = time.process_time()
    with _one_thread():
        scores, _ = index.search(queries, neighbours)
    seconds = time.process_time() - start
    products = index.ntotal if stats is None else stats.ndis / len(queries)
    if kind == "ivf":
        products += index.nlist
    return Trial(kind, setting, tie_aware_recall(scores, floor), COST[kind] * products, 1e6 * seconds / len(queries))


def _apply(index: Any, trial: Trial) -> None:
    if trial.type == "ivf":
        index.nprobe = trial.setting["probes"]
    elif trial.type == "hnsw":
        index.hnsw.efSearch = trial.setting["ef"]


def _flat(rows: Floats) -> Any:
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return index


def _hnsw(rows: Floats) -> Any:
    import faiss

    index = faiss.IndexHNSWFlat(rows.shape[1], HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = HNSW_BUILD
    with _one_thread():
        index.add(rows)
    return index


def _ivf(rows: Floats, lists: int, seed: int) -> Any:
    import faiss

    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(rows.shape[1]), rows.shape[1], lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = seed + 1
    index.cp.niter = 10
    index.cp.spherical = True
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, IVF_TRAIN
    with _one_thread():
        index.train(rows)
        index.add(rows)
    return index


@contextmanager
def _one_thread() -> Iterator[None]:
    """Threads add to a graph in a race and sum in another order: index and recall would differ from run to
    run."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _serialised_bytes(index: Any) -> int:
    import faiss

    writer = faiss.VectorIOWriter()
    faiss.write_index(index, writer)
    return int(writer.data.size())
