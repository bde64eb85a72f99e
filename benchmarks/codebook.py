"""How well and how fast item vectors become a few bytes: our codebook beside its peers.

Usage::

    make bench-codebook                                       everything: hours
    make bench-codebook ARGS="--data ml-1m --bytes 8"         a part of it
    make bench-codebook ARGS="--resume"                       what the results file lacks

A fifth of a catalogue's texts, 3,000 at most, is held out of the fit. ``cosine`` is their mean cosine to what their
codes stand for. ``sym`` and ``asym`` are the shares of the ten nearest neighbours that are found from codes alone, and
by an exact query among codes; the database is the held-out texts or, in ``_all``, the whole catalogue. Decoded vectors
are brought to unit length. ``usage`` is the share of a byte's 256 values that the catalogue uses, ``collisions`` the
share of held-out texts whose codes another has too. Times are seconds and vectors a second of CPU time.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.item_vectors import DATA_SETS, ENCODERS, item_vectors
from benchmarks.quantizers import OURS, PAPER, PEERS, SLOW_FROM, Fit
from benchmarks.report import Check, Results
from hymirec_model.codebook_drift import nearest, overlap

Floats = npt.NDArray[np.float32]
QUALITY = ("cosine", "sym", "asym", "sym_all", "asym_all")
REFERENCE = "faiss RQ, beam 5"  # faiss's defaults: the line for speed
TIMED = 10_000  # vectors that speed is taken on, at least
TOLERANCE = 0.002  # a peer ahead by less counts as equal


def main(
    data: Annotated[list[str], typer.Option(help="Catalogues.")] = list(DATA_SETS),  # noqa: B006
    encoder: Annotated[list[str], typer.Option(help="Encoders.")] = list(ENCODERS),  # noqa: B006
    n_bytes: Annotated[list[int], typer.Option("--bytes", help="Bytes an item.")] = [4, 8, 16, 32],  # noqa: B006
    seeds: Annotated[int, typer.Option(help="Splits and fits of each contender.")] = 3,
    only: Annotated[list[str], typer.Option(help="Contenders; all by default.")] = [],  # noqa: B006
    shared: Annotated[Path, typer.Option(help="Folder of the data sets.")] = Path("../shared/data"),
    name: Annotated[str, typer.Option(help="Name of the results file.")] = "codebook",
    resume: Annotated[bool, typer.Option(help="Keep what the results file has and measure the rest.")] = False,
) -> None:
    """Fit every contender and write benchmarks/results/NAME.json."""
    results = Results.resumed(name) if resume else Results(name)
    contenders = {k: f for k, f in (OURS | PAPER | PEERS).items() if not only or k in only}
    for case in ((d, e, b) for d in data for e in encoder for b in n_bytes):
        vectors = item_vectors(case[0], case[1], shared)  # type: ignore[arg-type]
        compare(results, {"data": case[0], "encoder": case[1], "bytes": case[2]}, vectors, seeds, contenders)
        results.checks = checks(results.rows)
        results.write()
    print(f"written: {results.write()}")
    results.show()


def compare(results: Results, case: dict[str, Any], vectors: Floats, seeds: int, contenders: dict[str, Fit]) -> None:
    """Add one row a contender: means over the seeds, the cosine's spread, and the figures of each seed."""
    for name, fit in {"mean vector": None, **contenders}.items():
        if case["bytes"] >= SLOW_FROM.get(name, 1 << 30):
            print(f"left out: {name} at {case['bytes']} bytes, its fit is too slow")
            continue
        earlier = results.find(**case, name=name)
        runs = list(earlier["runs"]) if earlier else []
        if len(runs) >= seeds:
            continue
        for seed in range(len(runs), seeds):
            train, held_out = split(vectors, seed)
            runs.append(measure(fit, train, held_out, case["bytes"], seed) if fit else _zero_line(train, held_out))
        if earlier:
            results.rows.remove(earlier)
        results.add(case | {"name": name} | _mean(runs) | {"runs": runs})


def split(vectors: Floats, seed: int) -> tuple[Floats, Floats]:
    """Vectors to fit on, and those held out."""
    order = np.random.default_rng(seed).permutation(len(vectors))
    held = min(3000, len(vectors) // 5)
    return vectors[order[held:]], vectors[order[:held]]


def measure(fit: Fit, train: Floats, held_out: Floats, n_bytes: int, seed: int) -> dict[str, float]:
    """Quality and speed of one fit."""
    start = time.process_time()
    quantizer = fit(train, n_bytes, seed)
    fit_s = time.process_time() - start
    many = np.tile(held_out, (-(-TIMED // len(held_out)), 1))
    start = time.process_time()
    codes = quantizer.encode(many)
    encoded = time.process_time()
    rebuilt = quantizer.decode(codes)[: len(held_out)]
    decoded = time.process_time()
    everything = np.concatenate([held_out, train])
    train_codes = quantizer.encode(train)
    figures = quality(held_out, everything, _unit(rebuilt), _unit(quantizer.decode(train_codes)))
    if quantizer.encode_lut:
        lut_start = time.process_time()
        quantizer.encode_lut(many)
        figures["encode_lut_per_s"] = len(many) / (time.process_time() - lut_start)
    used = [len(np.unique(column)) for column in np.concatenate([codes, train_codes]).T]
    return figures | {
        "usage": float(np.mean(used)) / 256,
        "collisions": 1 - len(np.unique(codes[: len(held_out)], axis=0)) / len(held_out),
        "fit_s": fit_s,
        "encode_per_s": len(many) / (encoded - start),
        "decode_per_s": len(many) / max(decoded - encoded, 1e-9),
    }


def quality(held_out: Floats, everything: Floats, rebuilt: Floats, rebuilt_train: Floats) -> dict[str, float]:
    """Cosine and neighbour recall@10; ``everything`` begins with the held-out vectors."""
    of_all = np.concatenate([rebuilt, rebuilt_train])
    near, near_all = nearest(held_out, held_out), nearest(held_out, everything)
    return {
        "cosine": float((rebuilt * held_out).sum(1).mean()),
        "sym": overlap(near, nearest(rebuilt, rebuilt)),
        "asym": overlap(near, nearest(held_out, rebuilt)),
        "sym_all": overlap(near_all, nearest(rebuilt, of_all)),
        "asym_all": overlap(near_all, nearest(held_out, of_all)),
    }


def checks(rows: list[dict[str, Any]]) -> list[Check]:
    """What was asked for: no peer ahead in quality, twice the speed of faiss's default, no longer a fit."""
    found = []
    for case in dict.fromkeys((row["data"], row["encoder"], row["bytes"]) for row in rows):
        by_name = {row["name"]: row for row in rows if (row["data"], row["encoder"], row["bytes"]) == case}
        mine, default = by_name.get("HyMiRec"), by_name.get(REFERENCE)
        peers = [row for name, row in by_name.items() if name in PEERS]
        title = f"{case[0]}, {case[1]}, {case[2]} bytes"
        if mine is None or not peers:
            continue
        for figure in QUALITY:
            best = max(peers, key=lambda row: row[figure])
            ahead = mine[figure] >= best[figure] - TOLERANCE
            found.append(Check(f"{title}: {figure} ({best['name']})", mine[figure], best[figure], ahead))
        if default:
            speed, fit = mine["encode_per_s"] / default["encode_per_s"], mine["fit_s"] / default["fit_s"]
            found.append(Check(f"{title}: encode speed / faiss RQ's", speed, 2, speed >= 2))
            found.append(Check(f"{title}: fit time / faiss RQ's", fit, 1, fit <= 1))
    return found


def _zero_line(train: Floats, held_out: Floats) -> dict[str, float]:
    return {"cosine": float((held_out @ _unit(train.mean(0, keepdims=True)).T).mean())}


def _mean(figures: list[dict[str, float]]) -> dict[str, float]:
    means = {name: float(f"{np.mean([f[name] for f in figures]):.5g}") for name in figures[0]}
    return means | {"cosine_sd": float(f"{np.std([f['cosine'] for f in figures]):.3g}")}


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9))


if __name__ == "__main__":
    typer.run(main)
