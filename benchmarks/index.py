"""The ANN index beside faiss' defaults, usearch and hnswlib: queries a second at equal recall.

Usage::

    make bench-index                                     10,000 to 5 M vectors
    make bench-index ARGS="--items 10000 --items 100000"
    make bench-index ARGS="--items 5000000 --without usearch"

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
import time
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.index_contenders import NEIGHBOURS, SMALL, Contender, Ints, Search, Vectors, contenders
from benchmarks.report import Check, Results
from hymirec_model.config import IndexConfig
from hymirec_model.index import CALL, SHARD, best_scores, build_index, exact_floor, fill, tie_aware_recall

DIM, QUERIES, TARGET = 96, 400, 0.99
DIRECTIONS, TURNS = 50_000, 5
GROWN_MOST = 100_000  # vectors that grow fivefold


def main(
    items: Annotated[list[int], typer.Option(help="Numbers of vectors.")] = [10_000, 100_000, 1_000_000, 5_000_000],  # noqa: B006
    target: Annotated[float, typer.Option(help="Recall@100 to reach.")] = TARGET,
    name: Annotated[str, typer.Option(help="Name of the results file.")] = "index",
    without: Annotated[list[str], typer.Option(help="Contenders to leave out, by the start of their name.")] = [],  # noqa: B006
) -> None:
    """Measure and write benchmarks/results/NAME.json."""
    import faiss

    faiss.omp_set_num_threads(1)
    results = Results(name)
    for size in items:
        vectors = catalogue(size)
        queries = mixtures(vectors, seed=0)
        floor = exact_floor(vectors, queries, NEIGHBOURS)
        contest(results, vectors, queries, floor, target, tuple(without))
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
    results: Results,
    vectors: Vectors,
    queries: npt.NDArray[np.float32],
    floor: npt.NDArray[np.float32],
    target: float,
    without: tuple[str, ...] = (),
) -> None:
    """Tune every contender to the target, time them in turns, and add a row each."""
    tuned: list[tuple[dict[str, Any], Search]] = []
    for name, build in contenders(vectors, mixtures(vectors, seed=1), target).items():
        if without and name.startswith(without):
            continue
        contender = build()
        print(f"{len(vectors):,} vectors, {contender.name}: built in {contender.build_s:.0f} CPU s", flush=True)
        row: dict[str, Any] = {"name": contender.name, "items": len(vectors), "build_s": contender.build_s}
        row["bytes_an_item"] = contender.bytes / len(vectors)
        row |= first_setting(contender, vectors, queries, floor, target)
        tuned.append((row, contender.at(row["setting"])))
    turns = [[timed(search, queries) for _, search in tuned] for _ in range(TURNS)]
    for (row, _), speeds in zip(tuned, np.transpose(turns), strict=True):
        results.add(row | {"queries_per_s": float(np.median(speeds)), "sd": float(np.std(speeds))})


def first_setting(
    contender: Contender,
    vectors: Vectors,
    queries: npt.NDArray[np.float32],
    floor: npt.NDArray[np.float32],
    target: float,
) -> dict[str, float]:
    """The first setting of the ladder that reaches the target, by bisection as recall rises with it; else the last."""

    def measured(setting: int) -> float:
        search = contender.at(setting)
        found = np.concatenate([search(queries[i : i + CALL]) for i in range(0, len(queries), CALL)])
        return recall(vectors, queries, found, floor)

    recalls: dict[int, float] = {}
    low, high = 0, len(contender.settings) - 1
    while low < high:
        middle = (low + high) // 2
        setting = contender.settings[middle]
        recalls[setting] = measured(setting)
        low, high = (low, middle) if recalls[setting] >= target else (middle + 1, high)
    chosen = contender.settings[low]
    return {"setting": chosen, "recall": recalls.get(chosen) or measured(chosen)}


def recall(vectors: Vectors, queries: npt.NDArray[np.float32], found: Ints, floor: npt.NDArray[np.float32]) -> float:
    """Recall of what was found, ranked exactly."""
    return tie_aware_recall(best_scores(vectors, queries, found.astype(np.int64), NEIGHBOURS), floor)


def timed(search: Search, queries: npt.NDArray[np.float32]) -> float:
    """Queries a second of CPU time, eight a call."""
    start = time.process_time()
    for i in range(0, len(queries), CALL):
        search(queries[i : i + CALL])
    return len(queries) / (time.process_time() - start)


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
