"""Our batched matching and clustering beside loops over the samples: CPU time a call, and whether both find the same.

Usage::

    make bench-matching
    make bench-matching ARGS="--turns 50"

The peers of :func:`hymirec_model.matching.match` solve a sample at a time with scipy's ``linear_sum_assignment``: once
with one conversion of the whole batch to numpy and back, which is the most that a loop can save, and once with one a
sample, as loops are mostly written. The peer of ``cluster_targets`` is the same k-means in numpy, a sample at a time,
without care for empty clusters. All in turns, in one process. ``us`` is the median CPU time of a call in microseconds,
``sd`` its standard deviation over the turns, ``faster`` ours over theirs by medians.

Before anything is timed, totals and numbers of pairs are compared on random similarities, half of them with many ties,
each cluster missing three times in ten. The run ends with an error where they differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
import typer
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks.report import Check, Results
from hymirec_model.matching import SAME, cluster_targets, match

TARGET = 50.0
ASKED = (4, 256)  # K and batch of the figure that was asked for
SIZES = (2, 3, 4, 5, 8)
BATCHES = (32, 256, 1024)
WIDTH, DIM, ROUNDS = 10, 192, 10  # of the windows that are clustered
Floats = npt.NDArray[np.floating]
Call = Callable[[], object]


def main(
    turns: Annotated[int, typer.Option(help="Turns of each contender.")] = 30,
    cases: Annotated[int, typer.Option(help="Random cases of each K that totals are compared on.")] = 20_000,
    name: Annotated[str, typer.Option(help="Name of the results file.")] = "matching",
) -> None:
    """Measure and write benchmarks/results/NAME.json."""
    torch.set_num_threads(1)
    results = Results(name)
    for size in SIZES:
        compared = equal_totals(size, cases)
        results.add({"name": "equal totals", "interests": size, **compared})
        for batch in BATCHES:
            contest(results, {"task": "match", "interests": size, "batch": batch}, matchers(size, batch), turns)
    for batch in BATCHES:
        contest(results, {"task": "cluster", "interests": ASKED[0], "batch": batch}, clusterers(batch), turns)
    results.checks = checks(results)
    results.write()
    results.show()


def problems(size: int, count: int, seed: int, *, holes: float) -> tuple[Tensor, Tensor]:
    """Random similarities (count, K, K), the second half in steps of .5, and clusters that exist (count, K)."""
    rng = np.random.default_rng(seed)
    similarity = rng.uniform(-1, 1, (count, size, size)).astype(np.float32)
    similarity[count // 2 :] = np.round(similarity[count // 2 :] * 2) / 2
    return torch.from_numpy(similarity), torch.from_numpy(rng.random((count, size)) >= holes)


def equal_totals(size: int, cases: int) -> dict[str, float]:
    """How many cases were compared and the largest difference of totals; an error where it is more than rounding."""
    similarity, valid = problems(size, cases, size, holes=0.3)
    ours, pairs = total(similarity, match(similarity, valid))
    theirs, their_pairs = total(similarity, loop(similarity, valid))
    furthest = float(np.abs(ours - theirs).max())
    if furthest > 1e-6 or (pairs != their_pairs).any():
        raise SystemExit(
            f"error: K = {size}: seen totals that differ by {furthest:.2g}, pairs in {(pairs != their_pairs).sum()} "
            "cases; allowed: 1e-06, none; see hymirec_model/matching.py"
        )
    return {"cases": cases, "difference": furthest}


def total(similarity: Tensor, found: Tensor) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Total similarity of each sample's pairs, and their number."""
    taken = similarity.double().gather(2, found.clamp_min(0)[..., None])[..., 0]
    return np.asarray((taken * (found >= 0)).sum(1)), np.asarray((found >= 0).sum(1))


def loop(similarity: Tensor, valid: Tensor) -> Tensor:
    """As :func:`hymirec_model.matching.match`, a sample at a time, with one conversion to numpy and one back."""
    found = np.full(similarity.shape[:2], -1)
    for row, scores, exists in zip(found, similarity.numpy(), valid.numpy(), strict=True):
        columns = np.flatnonzero(exists)
        rows, chosen = linear_sum_assignment(scores[:, columns], maximize=True)
        row[rows] = columns[chosen]
    return torch.from_numpy(found)


def converting_loop(similarity: Tensor, valid: Tensor) -> Tensor:
    """As :func:`loop`, with a conversion to numpy and back for each sample."""
    found = torch.full(similarity.shape[:2], -1)
    for number in range(len(similarity)):
        columns = valid[number].nonzero()[:, 0]
        rows, chosen = linear_sum_assignment(similarity[number][:, columns].numpy(), maximize=True)
        found[number, torch.from_numpy(rows)] = columns[torch.from_numpy(chosen)]
    return found


def matchers(size: int, batch: int) -> dict[str, Call]:
    """Contenders on one batch, all of whose clusters exist."""
    similarity, valid = problems(size, batch, 99, holes=0.0)
    return {
        "HyMiRec": partial(match, similarity, valid),
        "scipy, a conversion a batch": partial(loop, similarity, valid),
        "scipy, a conversion a sample": partial(converting_loop, similarity, valid),
    }


def clusterers(batch: int) -> dict[str, Call]:
    """Contenders on windows of random targets."""
    targets = torch.randn(batch, WIDTH, DIM, generator=torch.Generator().manual_seed(0))
    targets /= targets.norm(dim=-1, keepdim=True)
    valid = torch.ones(batch, WIDTH, dtype=torch.bool)
    return {
        "HyMiRec": partial(cluster_targets, targets, valid, ASKED[0], 0, ROUNDS),
        "numpy, a sample at a time": lambda: [k_means(window, ASKED[0]) for window in targets.numpy()],
    }


def k_means(unit_Wd: Floats, clusters: int) -> npt.NDArray[np.int64]:
    """Labels (W,) of a cosine k-means of unit vectors, which starts as ours does with seed 0."""
    cosine_WW = unit_Wd @ unit_Wd.T
    chosen = [int(np.random.default_rng(0).random(len(unit_Wd)).argmax())]
    while len(chosen) < clusters:
        nearest_W = cosine_WW[chosen].max(0)
        if nearest_W.min() > SAME:
            break
        chosen.append(int(nearest_W.argmin()))
    centre_kd = unit_Wd[chosen]
    for _ in range(ROUNDS):
        label_W = (unit_Wd @ centre_kd.T).argmax(1)
        sum_kd = (label_W == np.arange(len(chosen))[:, None]).astype(unit_Wd.dtype) @ unit_Wd
        length_k = np.linalg.norm(sum_kd, axis=1, keepdims=True)
        centre_kd = np.where(length_k > 1e-6, sum_kd / np.maximum(length_k, 1e-6), centre_kd)
    return np.asarray(label_W, np.int64)


def contest(results: Results, about: dict[str, object], contenders: dict[str, Call], turns: int) -> None:
    """Time the contenders in turns, and add a row each."""
    for call in contenders.values():
        call()
    measured = np.array([[cpu_time(call) for call in contenders.values()] for _ in range(turns)]) * 1e6
    middle = np.median(measured, axis=0)
    for name, us, sd in zip(contenders, middle, measured.std(0), strict=True):
        results.add({"name": name, **about, "us": float(us), "sd": float(sd), "faster": float(us / middle[0])})


def cpu_time(call: Call, least: float = 0.005) -> float:
    """Seconds of CPU time of one call, over as many as take ``least`` seconds."""
    count, start = 0, time.process_time()
    while (spent := time.process_time() - start) < least or not count:
        call()
        count += 1
    return spent / count


def checks(results: Results) -> list[Check]:
    """The figure that was asked for, beside both loops."""
    key = {"task": "match", "interests": ASKED[0], "batch": ASKED[1]}
    rows = [row for row in results.rows if row["name"].startswith("scipy") and row.items() >= key.items()]
    title = f"K = {ASKED[0]}, batch {ASKED[1]}: times as fast as "
    return [Check(title + row["name"], row["faster"], TARGET, row["faster"] >= TARGET) for row in rows]


if __name__ == "__main__":
    typer.run(main)
