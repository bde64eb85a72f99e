"""The ANN index beside faiss' defaults, usearch and hnswlib: queries a second at equal recall.

Usage::

    make bench-index                                     10,000 to 5 M vectors
    make bench-index ARGS="--items 10000 --items 100000"

Vectors are noisy copies of 50,000 random directions that share a mean, with a falling spectrum, 16-bit floats of DIM
dimensions; queries are mixtures of a few of them, as interests are. Each contender gets the first setting of a rising
ladder with which its recall@100 reaches the target; one that fetches more than it is asked for ranks what it fetched
exactly, within its time. All are timed in turns, eight queries a call (a user's interests), on one thread.
``queries_per_s`` is the median of the turns, ``sd`` their standard deviation, both per second of CPU time, as is
``build_s``. Peers build their graphs with as many threads as there are cores. ``growth`` adds four times as many
vectors to a trained index.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.report import Check, Results
from hymirec_model import index_types
from hymirec_model.config import IndexConfig
from hymirec_model.index import CALL, SHARD, best_scores, build_index, exact_floor, fill, shards, tie_aware_recall
from hymirec_model.index_types import TYPES, list_count

DIM, QUERIES, NEIGHBOURS, TARGET = 96, 400, 100, 0.99
DIRECTIONS, TURNS = 50_000, 5
SMALL = 0.6  # of the size of the vectors in 16 bits: the budget of the second contest
GROWN_MOST = 100_000  # vectors that grow fivefold
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


def main(
    items: Annotated[list[int], typer.Option(help="Numbers of vectors.")] = [10_000, 100_000, 1_000_000, 5_000_000],  # noqa: B006
    target: Annotated[float, typer.Option(help="Recall@100 to reach.")] = TARGET,
    name: Annotated[str, typer.Option(help="Name of the results file.")] = "index",
) -> None:
    """Measure and write benchmarks/results/NAME.json."""
    import faiss

    faiss.omp_set_num_threads(1)
    results = Results(name)
    for size in items:
        vectors = catalogue(size)
        queries = mixtures(vectors, seed=0)
        floor = exact_floor(vectors, queries, NEIGHBOURS)
        contest(results, vectors, queries, floor, target)
        del vectors
        if size <= GROWN_MOST:
            results.add({"name": "growth", "items": size, **growth(size, target)})
        results.checks = checks(results.rows)
        print(f"written: {results.write()}")
    results.show()


def catalogue(n: int) -> Vectors:
    """Item vectors of shape (n, DIM)."""
    random = np.random.default_rng(0)
    spectrum = (1 + np.arange(DIM, dtype=np.float32)) ** -0.5  # few directions hold most of the variance, as in texts
    centres = spectrum * random.normal(size=(DIRECTIONS, DIM)).astype(np.float32) + 0.2
    vectors = np.empty((n, DIM), np.float16)
    for start in range(0, n, SHARD):
        stop = min(start + SHARD, n)
        noise = 0.5 * spectrum * random.normal(size=(stop - start, DIM)).astype(np.float32)
        vectors[start:stop] = _unit(centres[random.integers(DIRECTIONS, size=stop - start)] + noise)
    return vectors


def mixtures(vectors: Vectors, seed: int) -> npt.NDArray[np.float32]:
    """Queries of shape (QUERIES, DIM), each a mixture of three items."""
    random = np.random.default_rng(seed)
    mixed = vectors[random.integers(len(vectors), size=(QUERIES, 3))].astype(np.float32)
    weights = random.dirichlet(np.ones(3), QUERIES).astype(np.float32)
    return _unit((mixed * weights[..., None]).sum(1))


def contest(
    results: Results, vectors: Vectors, queries: npt.NDArray[np.float32], floor: npt.NDArray[np.float32], target: float
) -> None:
    """Tune every contender to the target, time them in turns, and add a row each."""
    tuned: list[tuple[dict[str, Any], Search]] = []
    for contender in chain(contenders(vectors, target), other_packages(vectors)):
        row: dict[str, Any] = {"name": contender.name, "items": len(vectors), "build_s": contender.build_s}
        row["bytes_an_item"] = contender.bytes / len(vectors)
        for setting in contender.settings:
            search = contender.at(setting)
            found = np.concatenate([search(queries[i : i + CALL]) for i in range(0, len(queries), CALL)])
            row |= {"setting": setting, "recall": recall(vectors, queries, found, floor)}
            if row["recall"] >= target:
                break
        tuned.append((row, contender.at(row["setting"])))
    turns = [[timed(search, queries) for _, search in tuned] for _ in range(TURNS)]
    for (row, _), speeds in zip(tuned, np.transpose(turns), strict=True):
        results.add(row | {"queries_per_s": float(np.median(speeds)), "sd": float(np.std(speeds))})


def recall(vectors: Vectors, queries: npt.NDArray[np.float32], found: Ints, floor: npt.NDArray[np.float32]) -> float:
    """Recall of what was found, ranked exactly."""
    return tie_aware_recall(best_scores(vectors, queries, found.astype(np.int64), NEIGHBOURS), floor)


def timed(search: Search, queries: npt.NDArray[np.float32]) -> float:
    """Queries a second of CPU time, eight a call."""
    start = time.process_time()
    for i in range(0, len(queries), CALL):
        search(queries[i : i + CALL])
    return len(queries) / (time.process_time() - start)


def contenders(vectors: Vectors, target: float) -> Iterator[Contender]:
    """Build one after the other: ours with any memory and within a budget, chosen on other queries, then faiss."""
    n, others = len(vectors), mixtures(vectors, seed=1)
    types = tuple(name for name in TYPES if name != "hnsw" or n <= GRAPH_MOST)
    for name, budget in (("HyMiRec", None), ("HyMiRec, small", SMALL * 2 * DIM * n / 1e6)):
        config = IndexConfig(
            types=types,  # type: ignore[arg-type]
            target_recall=target,
            neighbours=NEIGHBOURS,
            queries=QUERIES,
            memory_mb=budget,
        )
        start = time.process_time()
        index, report = build_index(vectors, others, config)
        seconds, kind = time.process_time() - start, TYPES[report.chosen.type]
        ladder = [value for value in kind.ladder(n, NEIGHBOURS) if value >= report.chosen.setting.get(kind.setting, 0)]
        yield Contender(
            f"{name} ({kind.name})", report.bytes, seconds, ladder, _ours(index, kind, vectors, report.fetch)
        )
    yield _faiss("faiss Flat", "Flat", vectors, [0])
    yield _faiss("faiss IVF,Flat", f"IVF{list_count(n)},Flat", vectors, TYPES["ivf"].ladder(n, NEIGHBOURS))
    pq = f"IVF{list_count(n)},PQ{DIM // 4}x8np"
    yield _faiss("faiss IVF,PQ", pq, vectors, TYPES["ivf"].ladder(n, NEIGHBOURS), fetch=4)
    yield _faiss("faiss HNSW32", "HNSW32", vectors, TYPES["hnsw"].ladder(n, NEIGHBOURS))


def other_packages(vectors: Vectors) -> Iterator[Contender]:
    """The graphs of usearch and hnswlib."""
    ladder = TYPES["hnsw"].ladder(len(vectors), NEIGHBOURS)
    yield _usearch(vectors, ladder)
    yield _hnswlib(vectors, ladder)


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
    index: Any = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
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
    index = Index(ndim=DIM, metric="ip", dtype="f16")
    index.add(np.arange(len(vectors)), vectors, threads=CORES)

    def at(setting: int) -> Search:
        index.expansion_search = setting
        return lambda asked: np.asarray(index.search(asked.astype(np.float16), NEIGHBOURS, threads=1).keys, np.int64)

    return Contender("usearch (16 bits)", index.serialized_length, time.process_time() - start, ladder, at)


def _hnswlib(vectors: Vectors, ladder: list[int]) -> Contender:
    import hnswlib

    start = time.process_time()
    index = hnswlib.Index(space="ip", dim=DIM)
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


def growth(n: int, target: float) -> dict[str, float]:
    """An inverted file trained on a fifth of the vectors that it holds in the end, beside one trained on all."""
    vectors = catalogue(5 * n)
    queries = mixtures(vectors, seed=0)
    config = IndexConfig(types=("ivf",), target_recall=target, neighbours=NEIGHBOURS, queries=QUERIES)
    found = {}
    index, before = build_index(vectors[:n], queries, config)
    fill(index, vectors[n:])
    floor = exact_floor(vectors, queries, NEIGHBOURS)

    def measured(index: Any) -> tuple[float, float]:
        ids = np.concatenate([index.search(queries[i : i + CALL], NEIGHBOURS)[1] for i in range(0, QUERIES, CALL)])
        return recall(vectors, queries, ids, floor), timed(lambda asked: index.search(asked, NEIGHBOURS)[1], queries)

    found["recall_before"] = before.chosen.recall
    found["recall_grown"], found["queries_per_s_grown"] = measured(index)
    while index.nprobe < index.nlist and found.get("recall_more_probes", 0.0) < target:
        index.nprobe = min(index.nlist, math.ceil(1.25 * index.nprobe))
        found["recall_more_probes"], found["queries_per_s_more_probes"] = measured(index)
    trained, _ = build_index(vectors, queries, config)
    found["recall_trained_anew"], found["queries_per_s_trained_anew"] = measured(trained)
    return found


def checks(rows: list[dict[str, Any]], target: float = TARGET) -> list[Check]:
    """Ours at or above the fastest peer that reaches the target, in any memory and in no more than ours."""
    made = []
    for size in dict.fromkeys(row["items"] for row in rows if row["name"] != "growth"):
        here = [row for row in rows if row["items"] == size and row["name"] != "growth"]
        peers = [row for row in here if "HyMiRec" not in row["name"] and row["recall"] >= target]
        for ours in (row for row in here if "HyMiRec" in row["name"]):
            small = "small" in ours["name"]
            limit = SMALL * 2 * DIM * 1.02 if small else math.inf
            rivals = [row for row in peers if row["bytes_an_item"] <= limit]
            best = max((row["queries_per_s"] for row in rivals), default=0.0)
            title = f"{size:,} vectors{', small' if small else ''}: queries a second, beside the fastest peer"
            made.append(Check(title, ours["queries_per_s"], best, ours["queries_per_s"] >= best))
            made.append(Check(f"{title.split(':')[0]}: recall", ours["recall"], target, ours["recall"] >= target))
    for row in (row for row in rows if row["name"] == "growth"):
        value = max(row["recall_grown"], row.get("recall_more_probes", 0.0))
        made.append(Check(f"{row['items']:,} grown fivefold: recall without training", value, target, value >= target))
    return made


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return found


if __name__ == "__main__":
    typer.run(main)
