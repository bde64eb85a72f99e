"""How good HyMiRec's lists are, beside peers on the same log, split and scorer.

Usage::

    make bench-quality DATA=ml-1m                             one log
    make bench-quality DATA=ml-1m ARGS="--validation --seeds 1"   on the events before the held-out ones, for tuning

Two tasks: ``window`` finds the last W events of users with long enough histories, as a set; ``next`` the last event of
every user. All items are ranked, those that a user had are left out (but not where people buy again). Every learner
gets the same seconds of CPU time on one thread, beside a few steps that find how many fit in; texts were embedded
before, by MiniLM. Seeds are trained side by side, one process a core. Intervals are 95 % bootstrap intervals over
users, of the mean over seeds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer

from benchmarks import rectools_peer
from benchmarks.hymirec_forms import FORMS, ONCE, Trainer
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
TASKS = {"window": "window", "next": "next_item"}  # task → its field in Log
LENGTHS = {"1-4": (1, 5), "5-19": (5, 20), "20-99": (20, 100), "100+": (100, None)}
PER_USER = dict[str, dict[str, npt.NDArray[np.float64]]]
Ranker = Callable[[Histories], Ints]


def main(
    data: Annotated[str, typer.Option(help=f"A log: {', '.join(LOGS)}.")],
    seconds: Annotated[float, typer.Option(help="CPU time of each training.")] = 90,
    seeds: Annotated[int, typer.Option(help="Trainings of each learner.")] = 3,
    only: Annotated[list[str], typer.Option(help="Contenders; all by default.")] = [],  # noqa: B006
    validation: Annotated[bool, typer.Option(help="Rank what comes before the held-out events.")] = False,
    shared: Annotated[Path, typer.Option(help="Folder of the logs.")] = Path("../shared/data"),
    processes: Annotated[int, typer.Option(help="Side by side.")] = os.cpu_count() or 1,
) -> None:
    """Train every contender and write benchmarks/results/quality-DATA.json (quality-DATA-validation.json)."""
    if data not in LOGS:
        raise SystemExit(f"error: --data is {data}; allowed: {', '.join(LOGS)}")
    known = [*FORMS, *ONCE, *LEARNING, *COUNTING]
    if unknown := set(only) - set(known):
        raise SystemExit(f"error: --only is {', '.join(sorted(unknown))}; allowed: {', '.join(known)}")
    name: LogName = data
    results = Results(f"quality-{name}" + "-validation" * validation)
    load(name, shared, validation=validation)  # embeds the texts, once for all processes
    chosen = [title for title in known if not only or title in only]
    mine, ours, peers, counting = (
        [title for title in chosen if title in group] for group in (FORMS, FORMS | ONCE, LEARNING, COUNTING)
    )
    # Forms share stage 1, so those of a seed stay in one process. The longest job comes first.
    jobs = [(0, ours), (0, counting), *((seed, group) for seed in range(seeds) for group in (peers, mine))]
    jobs = [(seed, group) for seed, group in jobs if group and (seed or group is not mine)]
    runs: dict[str, list[Run]] = {title: [] for title in chosen}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        train = partial(trained, name, shared, validation, seconds)
        futures = [pool.submit(train, seed, group) for seed, group in jobs]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for future in futures:
        for title, run in future.result().items():
            runs[title].append(run)
    ahead = mean_over_seeds(runs[MINE]) if MINE in runs else None
    for title, of_title in runs.items():
        row: dict[str, Any] = {"name": title, "seeds": len(of_title)}
        row |= figures(of_title)
        if ahead is not None and title != MINE:
            same = mean_over_seeds(runs[MINE][: len(of_title)]) if title in ONCE else ahead
            row |= lead(same, mean_over_seeds(of_title))
        results.add(row)
    results.checks = checks(results.rows)
    print(f"written: {results.write()}")
    results.show()


@dataclass(frozen=True, slots=True)
class Run:
    """What one training found."""

    per_user: PER_USER
    newcomer: float
    """Recall@50 of the late next items by the list of someone without a history, see ``Log.late``."""
    coverage: float
    """Share of the items that are in the first 50 of anybody's list (window)."""
    seconds: float
    """CPU time that the training took."""


def trained(
    name: LogName, shared: Path, validation: bool, seconds: float, seed: int, titles: list[str]
) -> dict[str, Run]:
    """Train these contenders with a seed, one after the other, and rank."""
    torch.set_num_threads(1)
    log = load(name, shared, validation=validation)
    found = {}
    for title, ranker, spent in rankers(log, titles, seconds, seed):
        found[title] = measure(log, ranker, spent)
        recall = found[title].per_user["window"]["recall@50"].mean()
        print(f"{name}, seed {seed}, {title}: recall@50 {recall:.4f} after {spent:.1f} s", flush=True)
    return found


def rankers(log: Log, titles: list[str], seconds: float, seed: int) -> Iterator[tuple[str, Ranker, float]]:
    """Train contenders, each when it is asked for, and tell the CPU time that it took."""
    forms = Trainer(log, WINDOWS[log.name].events, seconds, seed)
    for title in titles:
        if title in FORMS or title in ONCE:
            yield title, forms.fit((FORMS | ONCE)[title]), forms.spent
            continue
        began = _cpu_seconds()
        if title in LEARNING:
            ranker = LEARNING[title](log, seconds, seed)
        else:
            baseline = COUNTING[title]()
            baseline.fit(log.train, log.items, int(log.train.timestamps.max()) + 1)
            ranker = partial(rank, baseline, n=200, mask_seen=log.mask_seen)
        yield title, ranker, _cpu_seconds() - began


def _cpu_seconds() -> float:
    """CPU time of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def _sequence(kind: type[SASRec | ComiRec], log: Log, seconds: float, seed: int) -> Ranker:
    began = time.process_time()
    model = kind(log, *SEQUENCES.get(log.name, SPARSE), seed)
    model.fit(log, seconds - (time.process_time() - began), seed)
    return partial(model.rank, mask_seen=log.mask_seen)


def _rectools(log: Log, seconds: float, seed: int) -> Ranker:
    return rectools_peer.fit(log, *SEQUENCES.get(log.name, SPARSE), seconds, seed)


LEARNING: dict[str, Callable[[Log, float, int], Ranker]] = {
    "SASRec": partial(_sequence, SASRec),
    "ComiRec-SA": partial(_sequence, ComiRec),
    "SASRec of RecTools": _rectools,
}


def measure(log: Log, ranker: Ranker, seconds: float) -> Run:
    """Figures of each user; ``seconds`` is the CPU time that the training took."""
    tasks: dict[str, Task] = {task: getattr(log, field) for task, field in TASKS.items()}
    lists = {task: ranker(about.past) for task, about in tasks.items()}
    per_user = {t: {m: f(lists[t], tasks[t].relevant) for m, f in METRICS.items()} for t in tasks}
    some = log.next_item.past.of_users(np.arange(1))
    nobody = Histories(some.user_ids.repeat(2), np.append(0, some.offsets), some.items, some.timestamps)
    same = np.repeat(ranker(nobody)[:1], len(log.next_item.past), axis=0)
    newcomer = float(METRICS["recall@50"](same, log.next_item.relevant)[log.late].mean())
    lengths = np.diff(log.next_item.past.offsets).astype(np.float64)
    per_user["next"]["length"] = lengths
    return Run(per_user, newcomer, metrics.coverage(lists["window"], log.items, 50), seconds)


def mean_over_seeds(runs: list[Run]) -> PER_USER:
    """Figures of each user."""
    return {
        task: {m: np.mean([run.per_user[task][m] for run in runs], axis=0) for m in figures}
        for task, figures in runs[0].per_user.items()
    }


def figures(runs: list[Run]) -> dict[str, Any]:
    """Means over users and seeds with their intervals; recall@50 of the next item by the length of the history."""
    per_user = mean_over_seeds(runs)
    row: dict[str, Any] = {"seconds": round(float(np.mean([run.seconds for run in runs])), 1)}
    for task, of_task in per_user.items():
        for metric in METRICS:
            found = metrics.bootstrap(of_task[metric], 1000, seed=0)
            row[f"{task} {metric}"] = [round(float(x), 4) for x in (found.mean, found.low, found.high)]
    row["window recall@50 by seed"] = [round(float(run.per_user["window"]["recall@50"].mean()), 4) for run in runs]
    row["window coverage@50"] = round(float(np.mean([run.coverage for run in runs])), 4)
    lengths, recall = per_user["next"]["length"], per_user["next"]["recall@50"]
    row["next recall@50 by length"] = {"0": round(float(np.mean([run.newcomer for run in runs])), 4)} | {
        label: round(float(recall[chosen].mean()), 4)
        for label, (low, high) in LENGTHS.items()
        if (chosen := (lengths >= low) & (lengths < (high or np.inf))).any()
    }
    return row


def lead(mine: PER_USER, theirs: PER_USER) -> dict[str, Any]:
    """How far HyMiRec is ahead of a peer on the same users: mean difference with its paired interval."""
    row = {}
    for task, metric in (("window", "recall@50"), ("window", "recall@200"), ("next", "recall@10"), ("next", "ndcg@10")):
        found = metrics.paired_bootstrap(mine[task][metric], theirs[task][metric], 1000, seed=0)
        row[f"lead {task} {metric}"] = [round(float(x), 4) for x in (found.mean, found.low, found.high)]
    return row


def checks(rows: list[dict[str, Any]]) -> list[Check]:
    """What was asked for: ahead of every peer on the window, not below SASRec on the next item, codes at no loss, and
    no kind of user worse off than by popularity or one interest."""
    by_name = {row["name"]: row for row in rows}
    mine = by_name.get(MINE)
    if mine is None:
        return []
    found = []
    for name, row in by_name.items():
        if name.startswith(MINE) or name == "stage 1 alone":
            continue
        wanted = ["window recall@50", "window recall@200"]
        wanted += ["next recall@10", "next ndcg@10"] if name.startswith("SASRec") else []
        for figure in wanted:
            value, bound = mine[figure][0], row[figure][0]
            found.append(Check(f"{figure}: {name}", value, bound, value >= bound))
        if name in ("popularity", "one interest, window (control)"):
            for label, bound in row["next recall@50 by length"].items():
                value = mine["next recall@50 by length"][label]
                found.append(Check(f"next recall@50, {label} events: {name}", value, bound, value >= bound))
    if full := by_name.get("HyMiRec, full vectors instead of codes"):
        kept = mine["window recall@50"][0] / full["window recall@50"][0]
        found.append(Check("window recall@50 from codes / from full vectors", kept, 0.99, kept >= 0.99))
    return found


if __name__ == "__main__":
    typer.run(main)
