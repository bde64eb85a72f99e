"""Metrics of several rankings on the same users, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from hymirec_model import metrics
from hymirec_model.metrics import Ints, Relevant
from jobs.platform.cli import FILE_WIDTH

MODEL, CHAMPION = "HyMiRec", "champion"  # names of rankings: the day's model, and that of the release before
LIST = 200  # length of the ranked lists
MAIN = ("recall@50", "recall@200", "ndcg@10")
NEW_ITEMS = "new items recall@200"
LENGTHS = ((1, 4), (5, 19), (20, 99), (100, None))


@dataclass(frozen=True, slots=True)
class Scorecard:
    """Figures of every user under every ranking.

    Attributes
    ----------
    per_user : dict of str to dict of str to float64 array of shape (U,)
        Metric arrays by ranking, then by metric; NaN where a metric is not defined for a user.
    coverage : dict of str to float
        Share of the catalogue in somebody's first 50, by ranking.
    n_history : int array of shape (U,)
        Events before the cut.
    """

    per_user: dict[str, dict[str, npt.NDArray[np.float64]]]
    coverage: dict[str, float]
    n_history: Ints

    @classmethod
    def measure(
        cls,
        lists: Mapping[str, Ints],
        unseen: Mapping[str, Ints],
        relevant: Relevant,
        new: Relevant,
        n_history: Ints,
        n_items: int,
    ) -> Scorecard:
        """Measure ranked lists.

        Parameters
        ----------
        lists : mapping of str to int array of shape (U, LIST)
            By name of the ranking; -1 marks an unused place.
        unseen : mapping of str to int array of shape (U, LIST)
            The same without what each user took before the cut: where new items are looked for.
        relevant : (offsets, items)
            What each user took after the cut.
        new : (offsets, items)
            The part of it that the user never took before; may be empty for a user.
        n_history : int array of shape (U,)
        n_items : int
            Size of the catalogue.
        """
        explorers = np.flatnonzero(np.diff(new[0]))
        new_offsets = np.concatenate([[0], np.cumsum(np.diff(new[0])[explorers])])
        per_user, coverage = {}, {}
        for name, ranked in lists.items():
            found = np.full(len(ranked), np.nan)
            if len(explorers):
                found[explorers] = metrics.recall_at(unseen[name][explorers], (new_offsets, new[1]), LIST)
            per_user[name] = {
                "recall@50": metrics.recall_at(ranked, relevant, 50),
                "recall@200": metrics.recall_at(ranked, relevant, LIST),
                "ndcg@10": metrics.ndcg_at(ranked, relevant, 10),
                NEW_ITEMS: found,
            }
            coverage[name] = metrics.coverage(ranked, n_items, 50)
        return cls(per_user, coverage, n_history)

    def rows(self, resamples: int, seed: int) -> list[dict[str, Any]]:
        """One row a ranking: each metric as {"mean", "low", "high"} (None where no user defines it), and
        coverage@50."""
        everyone = np.arange(len(self.n_history))
        return [row | {"coverage@50": self.coverage[str(row["name"])]} for row in self._rows(everyone, resamples, seed)]

    def by_history(self, resamples: int, seed: int) -> list[dict[str, Any]]:
        """The same rows (without coverage) for users with short to long histories; empty groups are left
        out."""
        groups = []
        for low, high in LENGTHS:
            inside = (self.n_history >= low) & (self.n_history <= (high or np.inf))
            users = np.flatnonzero(inside)
            if len(users):
                label = f"{low}-{high}" if high else f"{low}+"
                rows = self._rows(users, resamples, seed)
                groups.append({"history": label, "users": len(users), "rows": rows})
        return groups

    def leads(self, name: str, resamples: int, seed: int) -> list[dict[str, Any]]:
        """How far a ranking lies ahead of each other one: paired intervals of the mean difference."""
        mine = self.per_user[name]
        return [
            {"over": other}
            | {
                metric: _interval(metrics.paired_bootstrap(mine[metric], theirs[metric], resamples, seed=seed))
                for metric in MAIN
            }
            for other, theirs in self.per_user.items()
            if other != name
        ]

    def compare(self, name: str, other: str, sparse_events: int, resamples: int, seed: int) -> list[dict[str, Any]]:
        """How a ranking stands beside another one on the same users, overall and by cohort.

        Parameters
        ----------
        name, other : str
            The two rankings.
        sparse_events : int
            Users with fewer events before the cut make up the cohort "sparse users".
        resamples, seed : int
            Of the paired bootstrap.

        Returns
        -------
        list of dict
            cohort, metric, users, the mean of each ranking by its name, and "difference", the paired interval of
            ``name - other``. A cohort without users is left out.
        """
        mine, theirs = self.per_user[name], self.per_user[other]
        everyone, sparse = np.ones(len(self.n_history), bool), self.n_history < sparse_events
        cohorts = [("all users", metric, everyone) for metric in MAIN]
        cohorts += [("sparse users", MAIN[0], sparse), ("new items", NEW_ITEMS, everyone)]
        compared = []
        for cohort, metric, inside in cohorts:
            inside = inside & ~np.isnan(mine[metric])
            if inside.any():
                a, b = mine[metric][inside], theirs[metric][inside]
                difference = _interval(metrics.paired_bootstrap(a, b, resamples, seed=seed))
                row = {"cohort": cohort, "metric": metric.removeprefix("new items "), "users": int(inside.sum())}
                compared.append(row | {name: float(a.mean()), other: float(b.mean()), "difference": difference})
        return compared

    def _rows(self, users: Ints, resamples: int, seed: int) -> list[dict[str, Any]]:
        rows = []
        for name, figures in self.per_user.items():
            row: dict[str, Any] = {"name": name}
            for metric, values in figures.items():
                chosen = values[users]
                chosen = chosen[~np.isnan(chosen)]
                row[metric] = _interval(metrics.bootstrap(chosen, resamples, seed=seed)) if len(chosen) else None
            rows.append(row)
        return rows


def render(evaluation: Mapping[str, Any]) -> list[Table]:
    """Tables of an evaluation.json for people: all users, and users by the length of their history."""
    cut, days = str(evaluation["cut"])[:10], evaluation["holdout_days"]
    title = f"{evaluation['users']:,} users, purchases of the {days} days from {cut}, all items ranked"
    main = Table(title=title, title_justify="left", caption="±: half of the 95 % bootstrap interval over users")
    main.add_column("ranking")
    names = [*MAIN, NEW_ITEMS, "coverage@50"]
    for name in names:
        main.add_column(label(name), justify="right")
    for row in evaluation["rows"]:
        main.add_row(row["name"], *(_cell(row.get(name)) for name in names))
    lengths = Table(title="Recall@50 by events before the cut", title_justify="left")
    lengths.add_column("events")
    lengths.add_column("users", justify="right")
    groups = evaluation.get("by_history", [])
    for row in groups[0]["rows"] if groups else []:
        lengths.add_column(row["name"], justify="right")
    for group in groups:
        means = [f"{row['recall@50']['mean']:.3f}" for row in group["rows"]]
        lengths.add_row(group["history"], f"{group['users']:,}", *means)
    return [main, lengths] if groups else [main]


def label(metric: str) -> str:
    """A metric's name as tables show it."""
    return metric.replace("recall", "Recall").replace("ndcg", "NDCG")


def as_text(tables: list[Table]) -> str:
    """Tables as plain text."""
    console = Console(width=FILE_WIDTH, no_color=True, highlight=False)
    with console.capture() as capture:
        for table in tables:
            console.print(table)
    return capture.get().rstrip()


def sentence(evaluation: Mapping[str, Any]) -> str:
    """The main figure of every ranking in one line."""
    figures = [f"{row['name']} {row[MAIN[0]]['mean']:.3f}" for row in evaluation["rows"]]
    return f"{MAIN[0]}: {', '.join(figures)} ({evaluation['users']:,} users)"


def mean_of(value: Any) -> float | None:
    """Mean of a metric of an evaluation.json, with an interval or without; None where it was not measured."""
    if value is None:
        return None
    return float(value["mean"] if isinstance(value, Mapping) else value)


def _interval(interval: metrics.Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return f"{value['mean']:.3f} ±{(value['high'] - value['low']) / 2:.3f}"
    return f"{value:.3f}"
