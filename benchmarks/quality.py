"""How good HyMiRec's lists are, beside peers on the same log, split and scorer.

Usage::

    make bench-quality DATA=ml-1m                             one log
    make bench-quality DATA=ml-1m ARGS="--validation --seeds 1"   on the events before the held-out ones, for tuning
    make bench-quality DATA=ml-1m ARGS="--by-time"            a week of everybody, as in a nightly refresh

Leave last, two tasks: ``window`` finds the last W events of users with long enough histories, as a set; ``next`` the
last event of every user. By time, one: ``week`` finds what users with a past take in the 7 days from the day on in
which nine tenths of all events are over; training sees what came before that day. All items are ranked, those that a
user had are left out (but not where people buy again). Every learner gets the same seconds of CPU time on one thread,
beside a few steps that find how many fit in; texts were embedded before, by MiniLM. Seeds are trained side by side, one
process a core. Intervals are 95 % bootstrap intervals over users, of the mean over seeds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
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
from benchmarks.hymirec_forms import BY_TIME, FORMS, ONCE, Trainer
from benchmarks.quality_data import LOGS, WINDOWS, Log, LogName, load
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
COUNTING_BY_TIME: dict[str, Callable[[], Baseline]] = {"popularity, 7 days": partial(Popularity, days=7)}
# SASRec and ComiRec: dimensions, positions, dropout. On the validation events of Beauty .5 was tried beside .3.
SEQUENCES = {"ml-1m": (64, 50, 0.2), "online-retail": (64, 50, 0.3)}
SPARSE = (64, 20, 0.5)
ASKED = {  # task → what HyMiRec is asked to be ahead in; of next items beside SASRec alone
    "window": ("recall@50", "recall@200"),
    "week": ("recall@50", "recall@200"),
    "next": ("recall@10", "ndcg@10"),
}
LENGTHS = {"1-4": (1, 5), "5-19": (5, 20), "20-99": (20, 100), "100+": (100, None)}
PER_USER = dict[str, dict[str, npt.NDArray[np.float64]]]
Ranker = Callable[[Histories], Ints]


def main(
    data: Annotated[str, typer.Option(help=f"A log: {', '.join(LOGS)}.")],
    seconds: Annotated[float, typer.Option(help="CPU time of each training.")] = 90,
    seeds: Annotated[int, typer.Option(help="Trainings of each learner.")] = 3,
    only: Annotated[list[str], typer.Option(help="Contenders; all by default.")] = [],  # noqa: B006
    validation: Annotated[bool, typer.Option(help="Rank what comes before the held-out events.")] = False,
    by_time: Annotated[bool, typer.Option(help="Hold out a week of everybody, not everybody's last events.")] = False,
    shared: Annotated[Path, typer.Option(help="Folder of the logs.")] = Path("../shared/data"),
    processes: Annotated[int, typer.Option(help="Side by side.")] = os.cpu_count() or 1,
) -> None:
    """Train every contender and write benchmarks/results/quality-DATA[-by-time][-validation].json."""
    if data not in LOGS:
        raise SystemExit(f"error: --data is {data}; allowed: {', '.join(LOGS)}")
    forms, counted = (FORMS | BY_TIME, COUNTING | COUNTING_BY_TIME) if by_time else (FORMS, COUNTING)
    known = [*forms, *ONCE, *LEARNING, *counted]
    if unknown := set(only) - set(known):
        raise SystemExit(f"error: --only is {', '.join(sorted(unknown))}; allowed: {', '.join(known)}")
    name: LogName = data
    results = Results(f"quality-{name}" + "-by-time" * by_time + "-validation" * validation)
    read = partial(load, name, shared, validation=validation, by_time=by_time)
    read()  # embeds the texts, once for all processes
    chosen = [title for title in known if not only or title in only]
    mine, ours, peers, counting = (
        [title for title in chosen if title in group] for group in (forms, forms | ONCE, LEARNING, counted)
    )
    # Forms share stage 1, so those of a seed stay in one process. The longest job comes first.
    jobs = [(0, ours), (0, counting), *((seed, group) for seed in range(seeds) for group in (peers, mine))]
    jobs = [(seed, group) for seed, group in jobs if group and (seed or group is not mine)]
    runs: dict[str, list[Run]] = {title: [] for title in chosen}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(trained, read, seconds, seed, group) for seed, group in jobs]
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
    newcomer: float | None
    """Recall@50 of ``Log.newcomers`` by the list of someone without a history; None where there are none."""
    coverage: float
    """Share of the items that are in the first 50 of anybody's list (of the log's first task)."""
    seconds: float
    """CPU time that the training took."""


def trained(read: Callable[[], Log], seconds: float, seed: int, titles: list[str]) -> dict[str, Run]:
    """Train these contenders with a seed, one after the other, and rank."""
    torch.set_num_threads(1)
    log, found = read(), {}
    for title, ranker, spent in rankers(log, titles, seconds, seed):
        found[title] = measure(log, ranker, spent)
        recall = found[title].per_user[next(iter(log.tasks))]["recall@50"].mean()
        print(f"{log.name}, seed {seed}, {title}: recall@50 {recall:.4f} after {spent:.1f} s", flush=True)
    return found


def rankers(log: Log, titles: list[str], seconds: float, seed: int) -> Iterator[tuple[str, Ranker, float]]:
    """Train contenders, each when it is asked for, and tell the CPU time that it took."""
    forms = Trainer(log, WINDOWS[log.name].events, seconds, seed)
    for title in titles:
        if form := (FORMS | BY_TIME | ONCE).get(title):
            yield title, forms.fit(form), forms.spent
            continue
        began = _cpu_seconds()
        if title in LEARNING:
            ranker = LEARNING[title](log, seconds, seed)
        else:
            baseline = (COUNTING | COUNTING_BY_TIME)[title]()
            baseline.fit(log.train, log.items, log.now)
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
    lists = {task: ranker(about.past) for task, about in log.tasks.items()}
    per_user = {t: {m: f(lists[t], about.relevant) for m, f in METRICS.items()} for t, about in log.tasks.items()}
    first, last = _first_and_last(log.tasks)
    past = log.tasks[last].past
    per_user[last]["length"] = np.diff(past.offsets).astype(np.float64)
    some = past.of_users(np.arange(1))
    nobody = Histories(some.user_ids.repeat(2), np.append(0, some.offsets), some.items, some.timestamps)
    same = np.repeat(ranker(nobody)[:1], len(log.newcomers[0]) - 1, axis=0)
    newcomer = float(METRICS["recall@50"](same, log.newcomers).mean()) if len(same) else None
    return Run(per_user, newcomer, metrics.coverage(lists[first], log.items, 50), seconds)


def _first_and_last(tasks: Mapping[str, Any]) -> tuple[str, str]:
    """The task of sets, and that which is told by the length of the history; by time it is one."""
    names = list(tasks)
    return names[0], names[-1]


def mean_over_seeds(runs: list[Run]) -> PER_USER:
    """Figures of each user."""
    return {
        task: {m: np.mean([run.per_user[task][m] for run in runs], axis=0) for m in figures}
        for task, figures in runs[0].per_user.items()
    }


def figures(runs: list[Run]) -> dict[str, Any]:
    """Means over users and seeds with their intervals; recall@50 of the last task by the length of the history."""
    per_user = mean_over_seeds(runs)
    row: dict[str, Any] = {"seconds": round(float(np.mean([run.seconds for run in runs])), 1)}
    for task, of_task in per_user.items():
        for metric in METRICS:
            found = metrics.bootstrap(of_task[metric], 1000, seed=0)
            row[f"{task} {metric}"] = [round(float(x), 4) for x in (found.mean, found.low, found.high)]
    first, last = _first_and_last(per_user)
    row[f"{first} recall@50 by seed"] = [round(float(run.per_user[first]["recall@50"].mean()), 4) for run in runs]
    row[f"{first} coverage@50"] = round(float(np.mean([run.coverage for run in runs])), 4)
    newcomer = [run.newcomer for run in runs if run.newcomer is not None]
    lengths, recall = per_user[last]["length"], per_user[last]["recall@50"]
    row[f"{last} recall@50 by length"] = ({"0": round(float(np.mean(newcomer)), 4)} if newcomer else {}) | {
        label: round(float(recall[chosen].mean()), 4)
        for label, (low, high) in LENGTHS.items()
        if (chosen := (lengths >= low) & (lengths < (high or np.inf))).any()
    }
    return row


def lead(mine: PER_USER, theirs: PER_USER) -> dict[str, Any]:
    """How far HyMiRec is ahead of a peer on the same users: mean difference with its paired interval."""
    row = {}
    for task, metric in ((task, metric) for task, wanted in ASKED.items() if task in mine for metric in wanted):
        found = metrics.paired_bootstrap(mine[task][metric], theirs[task][metric], 1000, seed=0)
        row[f"lead {task} {metric}"] = [round(float(x), 4) for x in (found.mean, found.low, found.high)]
    return row


def checks(rows: list[dict[str, Any]]) -> list[Check]:
    """What was asked for: ahead of every peer on the window or the week, not below SASRec on the next item, codes at no
    loss, and for next items no kind of user worse off than by popularity or one interest."""
    by_name = {row["name"]: row for row in rows}
    mine = by_name.get(MINE)
    if mine is None:
        return []
    found = []
    asked = [f"{task} {metric}" for task, wanted in ASKED.items() for metric in wanted if f"{task} {metric}" in mine]
    for name, row in by_name.items():
        if name.startswith(MINE) or name == "stage 1 alone":
            continue
        for figure in asked:
            if figure.startswith("next") and not name.startswith("SASRec"):
                continue
            value, bound = mine[figure][0], row[figure][0]
            found.append(Check(f"{figure}: {name}", value, bound, value >= bound))
        if name in ("popularity", "one interest, window (control)"):
            for label, bound in row.get("next recall@50 by length", {}).items():
                value = mine["next recall@50 by length"][label]
                found.append(Check(f"next recall@50, {label} events: {name}", value, bound, value >= bound))
    if full := by_name.get("HyMiRec, full vectors instead of codes"):
        kept = mine[asked[0]][0] / full[asked[0]][0]
        found.append(Check(f"{asked[0]} from codes / from full vectors", kept, 0.99, kept >= 0.99))
    return found


if __name__ == "__main__":
    typer.run(main)
