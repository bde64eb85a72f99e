"""Does the codebook keep up with new items, without changing the codes of old ones?

Usage::

    make bench-drift                            minutes
    make bench-drift ARGS="--seeds 1"

The texts of The Complete Journey arrive on the day they were first sold; those sold in January or never are there from
the start. Five departments, a sixth of the texts, are unknown at first.

``unseen departments``: they all arrive at once. ``a year``: they open one after the other, each with what it would have
sold so far, and other texts arrive day by day; every day the policy of fit_codebook decides. A contender is a policy;
``cosine`` and ``recall`` (ten nearest neighbours, asymmetric) are those of everything that arrived, by the codes it has
at the end. ``changed`` counts codes that an item had and lost again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from tqdm import tqdm

from benchmarks.item_vectors import complete_journey_arrivals, item_vectors
from benchmarks.report import Check, Results
from hymirec_model.codebook import ResidualCodebook
from hymirec_model.codebook_drift import fidelity, measure_drift, next_action
from hymirec_model.config import CodebookConfig

Floats = npt.NDArray[np.float32]
UNSEEN = {"COSMETICS": 60, "NUTRITION": 120, "MEAT": 180, "MEAT-PCKGD": 240, "PRODUCE": 300}  # the day each one opens
START = 30  # days in which what is sold counts as known
MEASURED = 1_000  # of either kind, each day
NEAR = 0.01  # of a full refit's cosine


@dataclass(slots=True)
class Coded:
    """Items with their codes, as the table item_codes holds them."""

    vectors: Floats
    generations: npt.NDArray[np.uint8]
    codes: npt.NDArray[np.uint8]
    changed: int = 0

    @classmethod
    def nothing(cls, vectors: Floats, config: CodebookConfig) -> Coded:
        return cls(vectors, np.zeros(len(vectors), np.uint8), np.zeros((len(vectors), config.layers), np.uint8))

    def code(self, book: ResidualCodebook, rows: npt.NDArray[np.int64]) -> None:
        """Give new items their codes."""
        if len(rows):
            self.generations[rows], self.codes[rows] = book.encode_best(self.vectors[rows])

    def code_again(self, book: ResidualCodebook, rows: npt.NDArray[np.int64]) -> None:
        """Replace the codes of items that had some."""
        self.code(book, rows)
        self.changed += len(rows)

    def figures(self, book: ResidualCodebook, rows: npt.NDArray[np.int64]) -> dict[str, float]:
        seen = fidelity(self.vectors[rows], book.decode(self.codes[rows], self.generations[rows]))
        return {"cosine": seen.cosine, "recall": seen.neighbour_recall, "zero_line": seen.zero_line}


def main(
    seeds: Annotated[int, typer.Option(help="Fits of each contender.")] = 3,
    n_bytes: Annotated[int, typer.Option("--bytes", help="Bytes an item.")] = 8,
    encoder: Annotated[str, typer.Option(help="Encoder of the texts.")] = "minilm",
    name: Annotated[str, typer.Option(help="Name of the results file.")] = "drift",
) -> None:
    """Run both scenarios and write benchmarks/results/NAME.json."""
    results = Results(name)
    vectors = item_vectors("complete-journey", encoder, Path())  # type: ignore[arg-type]
    arrivals = complete_journey_arrivals()
    day = days_of_arrival(arrivals)
    unseen = arrivals["department"].isin(UNSEEN).to_numpy()
    for seed in range(seeds):
        config = CodebookConfig(layers=n_bytes, seed=seed)
        for row in departments_at_once(vectors, unseen, config):
            results.add({"scenario": "unseen departments", "seed": seed} | row)
        for title, settings in {
            "frozen": replace(config, drift=1e9, drift_recall=1e9),
            "HyMiRec": config,
            "HyMiRec, at most 2 generations": replace(config, max_generations=2),
        }.items():
            results.add({"scenario": "a year", "seed": seed, "name": title} | a_year(vectors, day, settings))
        full = ResidualCodebook(config).fit(vectors)
        coded = Coded.nothing(vectors, config)
        coded.code(full, np.arange(len(vectors)))
        row = coded.figures(full, np.flatnonzero(day > 0))
        results.add({"scenario": "a year", "seed": seed, "name": "full refit", "changed": len(vectors)} | row)
    results.checks = checks(results.rows)
    print(f"written: {results.write()}")
    results.show()


def days_of_arrival(arrivals: Any) -> npt.NDArray[np.int64]:
    """Day each text arrives, 0 for those that are there from the start."""
    first = arrivals["day"].astype("datetime64[ns]")
    day = ((first - first.min()).dt.days - START).fillna(0).clip(lower=0).to_numpy().astype(np.int64)
    opening = arrivals["department"].map(UNSEEN).fillna(0).to_numpy().astype(np.int64)
    return np.asarray(np.maximum(day, opening))


def departments_at_once(
    vectors: Floats, unseen: npt.NDArray[np.bool_], config: CodebookConfig
) -> Iterator[dict[str, Any]]:
    """Rows of the first scenario."""
    old, new = np.flatnonzero(~unseen), np.flatnonzero(unseen)
    book, coded = ResidualCodebook(config).fit(vectors[old]), Coded.nothing(vectors, config)
    coded.code(book, np.arange(len(vectors)))
    before, rebuilt = coded.codes[old].copy(), book.decode(coded.codes[old], coded.generations[old])
    yield {"name": "known items", **coded.figures(book, old)}
    yield {"name": "frozen", "changed": 0, **coded.figures(book, new)}

    drift = measure_drift(book, vectors[old][:MEASURED], vectors[new][:MEASURED], config)
    start = time.process_time()
    book.partial_fit(vectors[new])
    fit_s = time.process_time() - start
    coded.code(book, new)
    same = np.array_equal(book.decode(before, coded.generations[old]), rebuilt)
    yield {
        "name": "HyMiRec: a new generation",
        "drift_seen": bool(drift.why),
        "changed": 0 if same else len(old),
        "generations": book.generations_,
        "fit_s": fit_s,
        **coded.figures(book, new),
    }

    start = time.process_time()
    full = ResidualCodebook(config).fit(vectors)
    fit_s = time.process_time() - start
    coded.code_again(full, np.arange(len(vectors)))
    yield {"name": "full refit", "changed": coded.changed, "fit_s": fit_s, **coded.figures(full, new)}


def a_year(vectors: Floats, day: npt.NDArray[np.int64], config: CodebookConfig) -> dict[str, Any]:
    """Row of one policy in the second scenario."""
    random = np.random.default_rng(config.seed)
    coded, start = Coded.nothing(vectors, config), time.process_time()
    book = ResidualCodebook(config).fit(vectors[day == 0])
    coded.code(book, np.flatnonzero(day == 0))
    fits, most, first, last = 1, 1, 0, 0  # first and last day of the book's fits
    for today in tqdm(range(1, int(day.max()) + 1), desc="days", unit="day", mininterval=5):
        arrived = np.flatnonzero(day == today)
        base, new = random.permutation(np.flatnonzero(day <= first)), np.flatnonzero((day > last) & (day <= today))
        sample = vectors[base[:MEASURED]], vectors[random.permutation(new)[:MEASURED]]
        action = next_action(book, measure_drift(book, *sample, config), config)
        if action != "kept":
            fits, last = fits + 1, today
        if action == "new generation":
            book.partial_fit(vectors[new])
        elif action == "new book":
            book, first = ResidualCodebook(config).fit(vectors[day <= today]), today
            coded.code_again(book, np.flatnonzero(day < today))
        coded.code(book, arrived)
        most = max(most, book.generations_)
    return {
        "changed": coded.changed,
        "fits": fits,
        "generations": book.generations_,
        "most_generations": most,
        "cpu_s": time.process_time() - start,
        **coded.figures(book, np.flatnonzero(day > 0)),
    }


def checks(rows: list[dict[str, Any]]) -> list[Check]:
    """What was asked for: near a full refit, no old code changed, generations bounded."""
    found = []
    for scenario, mine in (("unseen departments", "HyMiRec: a new generation"), ("a year", "HyMiRec")):
        for seed in sorted({row["seed"] for row in rows}):
            named = {row["name"]: row for row in rows if row["scenario"] == scenario and row["seed"] == seed}
            behind = named["full refit"]["cosine"] - named[mine]["cosine"]
            title = f"{scenario}, seed {seed}"
            found.append(Check(f"{title}: cosine below a full refit's", behind, NEAR, behind <= NEAR))
            changed = named[mine]["changed"]
            found.append(Check(f"{title}: old codes changed", changed, 0, changed == 0))
    limit = CodebookConfig().max_generations
    for row in rows:
        if row["name"].startswith("HyMiRec") and "most_generations" in row:
            bound = 2 if "2 generations" in row["name"] else limit
            title = f"{row['scenario']}, seed {row['seed']}, {row['name']}: generations"
            found.append(Check(title, row["most_generations"], bound, row["most_generations"] <= bound))
    return found


if __name__ == "__main__":
    typer.run(main)
