"""How good HyMiRec's lists are, beside peers on the same log, split and scorer.

Usage::

    make bench-quality DATA=ml-1m                             one log
    make bench-quality DATA=ml-1m ARGS="--validation --seeds 1"   on the events before the held-out ones, for tuning

Two tasks: ``window`` finds the last W events of users with long enough histories, as a set; ``next`` the last event of
every user. All items are ranked, those that a user had are left out (but not where people buy again). Every learner
gets the same seconds of CPU time on one thread, beside a few steps that find how many fit in; texts were embedded
before, by MiniLM. Intervals are 95 % bootstrap intervals over users, of the mean over seeds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer

from benchmarks import hymirec_forms
from benchmarks.hymirec_forms import FORMS
from benchmarks.quality_data import LOGS, WINDOWS, Log, LogName, Task, load
from benchmarks.report import Check, Results
from benchmarks.sequence_peers import ComiRec, SASRec
from hymirec_model import metrics
from hymirec_model.baselines import Baseline, CoOccurrence, OwnRepeats, Popularity, rank
from hymirec_model.histories import Histories, Ints

MINE = "HyMiRec"
METRICS: dict[str, Callable[[Ints, Any], npt.NDArray[np.float64]]] = {
    "recall@10": partial(metrics.recall_at, k=10),
    "recall@50": partial(metrics.recall_at, k=50),
    "recall@200": partial(metrics.recall_at, k=200),
    "ndcg@10": partial(metrics.ndcg_at, k=10),
}
COUNTING: dict[str, Callable[[], Baseline]] = {
    "popularity": Popularity,
    "co-occurrence": partial(CoOccurrence, events=20),
    "own repeats": OwnRepeats,
}
# SASRec and ComiRec: dimensions, positions, dropout. On the validation events of Beauty .5 was tried beside .3.
SEQUENCES = {"ml-1m": (64, 50, 0.2), "online-retail": (64, 50, 0.3)}
SPARSE = (64, 20, 0.5)
PER_USER = dict[str, dict[str, npt.NDArray[np.float64]]]


def main(
    data: Annotated[str, typer.Option(help=f"A log: {', '.join(LOGS)}.")],
    seconds: Annotated[float, typer.Option(help="CPU time of each training.")] = 90,
    seeds: Annotated[int, typer.Option(help="Trainings of each learner.")] = 3,
    only: Annotated[list[str], typer.Option(help="Contenders; all by default.")] = [],  # noqa: B006
    validation: Annotated[bool, typer.Option(help="Rank what comes before the held-out events.")] = False,
    shared: Annotated[Path, typer.Option(help="Folder of the logs.")] = Path("../shared/data"),
) -> None:
    """Train every contender and write benchmarks/results/quality-DATA.json (quality-DATA-validation.json)."""
    if data not in LOGS:
        raise SystemExit(f"error: --data is {data}; allowed: {', '.join(LOGS)}")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    name: LogName = data
    log = load(name, shared, validation=validation)
    results = Results(f"quality-{name}" + "-validation" * validation)
    mine: PER_USER | None = None
    for title, train in contenders(name, seconds).items():
        if only and title not in only:
            continue
        learns = title not in COUNTING
        row, per_user = measure(log, train, seeds if learns else 1)
        if title == MINE:
            mine = per_user
        elif mine is not None:
            row |= lead(mine, per_user)
        results.add({"name": title, "seconds": seconds if learns else 0} | row)
    results.checks = checks(results.rows)
    print(f"written: {results.write()}")
    results.show()


def contenders(name: LogName, seconds: float) -> dict[str, Callable[[Log, int], Callable[[Histories], Ints]]]:
    """What trains on a log with a seed and then ranks; HyMiRec comes first, so that the others are set beside it."""
    window = WINDOWS[name].events
    made: dict[str, Any] = {
        title: lambda log, seed, form=form: hymirec_forms.fit(form, log, window, seconds, seed)
        for title, form in FORMS.items()
    }
    for title, kind in {"SASRec": SASRec, "ComiRec-SA": ComiRec}.items():
        made[title] = lambda log, seed, kind=kind: _sequence(kind, log, seconds, seed)
    for title, baseline in COUNTING.items():
        made[title] = lambda log, seed, baseline=baseline: _counting(baseline(), log)
    return made


def _sequence(kind: type[SASRec | ComiRec], log: Log, seconds: float, seed: int) -> Callable[[Histories], Ints]:
    began = time.process_time()
    model = kind(log, *SEQUENCES.get(log.name, SPARSE), seed)
    model.fit(log, seconds - (time.process_time() - began), seed)
    return partial(model.rank, mask_seen=log.mask_seen)


def _counting(baseline: Baseline, log: Log) -> Callable[[Histories], Ints]:
    baseline.fit(log.train, log.items, int(log.train.timestamps.max()) + 1)
    return partial(rank, baseline, n=200, mask_seen=log.mask_seen)


def measure(
    log: Log, train: Callable[[Log, int], Callable[[Histories], Ints]], seeds: int
) -> tuple[dict[str, Any], PER_USER]:
    """Means over users and seeds with their intervals, and the figures of each user (means over seeds)."""
    tasks: dict[str, Task] = {"window": log.window, "next": log.next_item}
    runs: list[PER_USER] = []
    covered = []
    for seed in range(seeds):
        ranker = train(log, seed)
        lists = {task: ranker(about.past) for task, about in tasks.items()}
        runs.append({t: {m: f(lists[t], tasks[t].relevant) for m, f in METRICS.items()} for t in tasks})
        covered.append(metrics.coverage(lists["window"], log.items, 50))
    per_user = {t: {m: np.mean([run[t][m] for run in runs], axis=0) for m in METRICS} for t in tasks}
    row: dict[str, Any] = {}
    for task, figures in per_user.items():
        for metric, values in figures.items():
            found = metrics.bootstrap(values, 1000, seed=0)
            row[f"{task} {metric}"] = [round(float(x), 4) for x in (found.mean, found.low, found.high)]
    spread = [float(run["window"]["recall@50"].mean()) for run in runs]
    return row | {"window recall@50 by seed": spread, "window coverage@50": float(np.mean(covered))}, per_user


def lead(mine: PER_USER, theirs: PER_USER) -> dict[str, Any]:
    """How far HyMiRec is ahead of a peer on the same users: mean difference with its paired interval."""
    row = {}
    for task, metric in (("window", "recall@50"), ("window", "recall@200"), ("next", "recall@10"), ("next", "ndcg@10")):
        found = metrics.paired_bootstrap(mine[task][metric], theirs[task][metric], 1000, seed=0)
        row[f"lead {task} {metric}"] = [round(float(x), 4) for x in (found.mean, found.low, found.high)]
    return row


def checks(rows: list[dict[str, Any]]) -> list[Check]:
    """What was asked for: ahead of every peer on the window, not below SASRec on the next item, codes at no loss."""
    mine = next((row for row in rows if row["name"] == MINE), None)
    if mine is None:
        return []
    found = []
    for row in rows:
        if row["name"] in (MINE, "HyMiRec, full vectors instead of codes", "stage 1 alone"):
            continue
        figures = ["window recall@50", "window recall@200"]
        figures += ["next recall@10", "next ndcg@10"] if row["name"] == "SASRec" else []
        for figure in figures:
            value, bound = mine[figure][0], row[figure][0]
            found.append(Check(f"{figure}: {row['name']}", value, bound, value >= bound))
    for row in rows:
        if row["name"] == "HyMiRec, full vectors instead of codes":
            kept = mine["window recall@50"][0] / row["window recall@50"][0]
            found.append(Check("window recall@50 from codes / from full vectors", kept, 0.99, kept >= 0.99))
    return found


if __name__ == "__main__":
    typer.run(main)
