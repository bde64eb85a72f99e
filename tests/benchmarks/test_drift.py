"""The simulated year follows the policy of fit_codebook, and its checks fail where they should."""

from __future__ import annotations

import datetime

import numpy as np
import pandas as pd

from benchmarks.drift import a_year, checks, days_of_arrival, departments_at_once
from hymirec_model.config import CodebookConfig
from tests.hymirec_model.test_codebook import clustered

CONFIG = CodebookConfig(layers=4, size=32, iterations=5, beam=4, drift=0.02)
VECTORS = np.concatenate([clustered(1000), *(clustered(200, seed=s, centres_seed=s) for s in (11, 12, 13))])


def test_texts_arrive_when_they_are_sold_and_their_department_is_open() -> None:
    sold = [datetime.date(2017, 1, 1), datetime.date(2017, 2, 10), None, datetime.date(2017, 1, 5)]
    frame = pd.DataFrame({"day": sold, "department": ["GROCERY", "GROCERY", "GROCERY", "COSMETICS"]})
    assert days_of_arrival(frame).tolist() == [0, 10, 0, 60]


def test_a_new_generation_serves_departments_that_come_at_once() -> None:
    rows = {row["name"]: row for row in departments_at_once(VECTORS[:1200], np.arange(1200) >= 1000, CONFIG)}
    assert rows["HyMiRec: a new generation"]["drift_seen"] and rows["HyMiRec: a new generation"]["changed"] == 0
    assert rows["HyMiRec: a new generation"]["cosine"] > rows["frozen"]["cosine"] + 0.02
    assert rows["full refit"]["changed"] == 1200


def test_a_year_bounds_its_generations() -> None:
    day = np.repeat([0, 1, 3, 5], [1000, 200, 200, 200])
    free, bounded = a_year(VECTORS, day, CONFIG), a_year(VECTORS, day, CodebookConfig(**_settings(max_generations=2)))
    assert (free["generations"], free["changed"], free["fits"]) == (4, 0, 4)
    assert bounded["most_generations"] == 2 and bounded["changed"] == 1200, "merged when the third was due"
    frozen = a_year(VECTORS, day, CodebookConfig(**_settings(drift=9.0, drift_recall=9.0)))
    assert (frozen["fits"], frozen["changed"]) == (1, 0) and frozen["cosine"] < free["cosine"] - 0.02


def test_checks_fail_where_they_should() -> None:
    def row(scenario: str, name: str, cosine: float, **more: int) -> dict[str, object]:
        return {"scenario": scenario, "seed": 0, "name": name, "cosine": cosine, "changed": 0} | more

    rows = [
        row("unseen departments", "HyMiRec: a new generation", 0.95),
        row("unseen departments", "full refit", 0.955),
        row("a year", "HyMiRec", 0.94, changed=3, most_generations=9),
        row("a year", "full refit", 0.955),
    ]
    assert [check.name for check in checks(rows) if not check.holds] == [
        "a year, seed 0: cosine below a full refit's",
        "a year, seed 0: old codes changed",
        "a year, seed 0, HyMiRec: generations",
    ]


def _settings(**more: float) -> dict[str, object]:
    return {"layers": 4, "size": 32, "iterations": 5, "beam": 4, "drift": 0.02} | more
