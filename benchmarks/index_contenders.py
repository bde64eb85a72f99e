"""Who takes part in ``make bench-index``: our index, faiss' own, usearch and hnswlib, built to one measure.

Peers build their graphs with as many threads as there are cores; all search with one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hymirec_model import index_types
from hymirec_model.config import IndexConfig
from hymirec_model.index import SHARD, best_scores, build_index, shards
from hymirec_model.index_types import TYPES, list_count

NEIGHBOURS = 100
SMALL = 0.6  # of the size of the vectors in 16 bits: the budget of the second contest
GRAPH_MOST = 1_000_000  # vectors up to which we try a graph ourselves: it has to be built by one thread
CORES = os.cpu_count() or 1

Ints = npt.NDArray[np.integer]
Vectors = npt.NDArray[np.float16]
Search = Callable[[npt.NDArray[np.float32]], Ints]


@dataclass(frozen=True, slots=True)
class Contender:
    """An index that was built, with a ladder of settings."""

    name: str
    bytes: int
    build_s: float
    settings: list[int]
    at: Callable[[int], Search]
    """The search at a setting."""


def contenders(vectors: Vectors, queries: npt.NDArray[np.float32], target: float) -> dict[str, Callable[[], Contender]]:
    """What builds each contender; ``queries`` choose our index, with any memory and within a budget."""
    n = len(vectors)
    lists, probes, depths = list_count(n), TYPES["ivf"].ladder(n, NEIGHBOURS), TYPES["hnsw"].ladder(n, NEIGHBOURS)
    return {
        "HyMiRec": lambda: _hymirec("HyMiRec", None, vectors, queries, target),
        "HyMiRec, small": lambda: _hymirec("HyMiRec, small", SMALL * vectors.nbytes / 1e6, vectors, queries, target),
        "faiss Flat": lambda: _faiss("faiss Flat", "Flat", vectors, [0]),
        "faiss IVF,Flat": lambda: _faiss("faiss IVF,Flat", f"IVF{lists},Flat", vectors, probes),
        "faiss IVF,PQ": lambda: _faiss(
            "faiss IVF,PQ", f"IVF{lists},PQ{vectors.shape[1] // 4}x8np", vectors, probes, fetch=4
        ),
        "faiss HNSW32": lambda: _faiss("faiss HNSW32", "HNSW32", vectors, depths),
        "usearch": lambda: _usearch(vectors, depths),
        "hnswlib": lambda: _hnswlib(vectors, depths),
    }


def _hymirec(
    name: str, memory_mb: float | None, vectors: Vectors, queries: npt.NDArray[np.float32], target: float
) -> Contender:
    """Our index, of the type that was chosen on other queries within the memory."""
    n = len(vectors)
    config = IndexConfig(
        types=tuple(each for each in TYPES if each != "hnsw" or n <= GRAPH_MOST),  # type: ignore[misc]
        target_recall=target,
        neighbours=NEIGHBOURS,
        queries=len(queries),
        memory_mb=memory_mb,
    )
    start = time.process_time()
    index, report = build_index(vectors, queries, config)
    seconds, kind = time.process_time() - start, TYPES[report.chosen.type]
    ladder = [value for value in kind.ladder(n, NEIGHBOURS) if value >= report.chosen.setting.get(kind.setting, 0)]
    return Contender(f"{name} ({kind.name})", report.bytes, seconds, ladder, _ours(index, kind, vectors, report.fetch))


def _fetching(index: Any, vectors: Vectors, fetch: int) -> Search:
    """Search of a faiss index; what is fetched beyond what was asked for has to be ranked exactly."""

    def search(asked: npt.NDArray[np.float32]) -> Ints:
        found = np.asarray(index.search(asked, NEIGHBOURS * fetch)[1])
        if fetch > 1:
            best_scores(vectors, asked, found, NEIGHBOURS)
        return found

    return search


def _ours(index: Any, kind: index_types.IndexType, vectors: Vectors, fetch: int) -> Callable[[int], Search]:
    def at(setting: int) -> Search:
        index_types.apply(kind, index, setting)
        return _fetching(index, vectors, fetch)

    return at


def _faiss(name: str, factory: str, vectors: Vectors, ladder: list[int], fetch: int = 1) -> Contender:
    import faiss

    start = time.process_time()
    index: Any = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).choice(len(vectors), min(len(vectors), 256 * 1024), replace=False)
    if not index.is_trained:
        index.train(vectors[np.sort(sample)].astype(np.float32))
    faiss.omp_set_num_threads(CORES)
    for _, shard in shards(vectors):
        index.add(shard)
    faiss.omp_set_num_threads(1)

    def at(setting: int) -> Search:
        if "IVF" in factory:
            index.nprobe = setting
        elif "HNSW" in factory:
            index.hnsw.efSearch = setting
        return _fetching(index, vectors, fetch)

    return Contender(name, int(faiss.serialize_index(index).size), time.process_time() - start, ladder, at)


def _usearch(vectors: Vectors, ladder: list[int]) -> Contender:
    from usearch.index import Index

    start = time.process_time()
    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f16")
    index.add(np.arange(len(vectors)), vectors, threads=CORES)

    def at(setting: int) -> Search:
        index.expansion_search = setting
        return lambda asked: np.asarray(index.search(asked.astype(np.float16), NEIGHBOURS, threads=1).keys, np.int64)

    return Contender("usearch (16 bits)", index.serialized_length, time.process_time() - start, ladder, at)


def _hnswlib(vectors: Vectors, ladder: list[int]) -> Contender:
    import hnswlib

    start = time.process_time()
    index = hnswlib.Index(space="ip", dim=vectors.shape[1])
    index.init_index(max_elements=len(vectors))
    index.set_num_threads(CORES)
    for first in range(0, len(vectors), SHARD):
        part = vectors[first : first + SHARD].astype(np.float32)
        index.add_items(part, np.arange(first, first + len(part)))
    index.set_num_threads(1)

    def at(setting: int) -> Search:
        index.set_ef(max(setting, NEIGHBOURS))
        return lambda asked: np.asarray(index.knn_query(asked, NEIGHBOURS)[0], np.int64)

    return Contender("hnswlib", index.index_file_size(), time.process_time() - start, ladder, at)
