"""Fit the residual codebook when it is due.

Reads ``item_vectors/ds``, ``catalog/ds``, ``histories/ds`` without the held-out days, and the codebook of an earlier
day. Writes ``codebook_drift/ds``, what was measured and done, and ``codebook/ds`` when something was fitted:

- a new book when there is none yet, the item vectors come from another item space, the profile asks for another
  form, ``--recode always`` says so, or one generation more than ``codebook.max_generations`` would be due;
- a new generation of the book when the items that arrived since the last fit are served worse than the base pool (what
  the book's first fit knew), by more than ``codebook.drift`` (mean cosine) or ``codebook.drift_recall`` (neighbours
  kept), and at least as many of them differ as a layer has entries;
- otherwise nothing.

``encode_items`` gives the items their codes. A new generation changes no stored code, a new book changes all of them.
A fit reads a sample that is drawn by events, those of the held-out days left out: codes are decoded in histories,
where few items come often. The demo takes about 20 s on two cores, and seconds on a day without a fit.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hymirec_model.codebook import ResidualCodebook
from hymirec_model.codebook_drift import Action, Drift, measure_drift, next_action
from hymirec_model.config import CodebookConfig
from jobs.platform import cli, columns, plots, tracking
from jobs.platform.datasets import dataset
from jobs.platform.errors import WarehouseError
from jobs.platform.item_sample import ItemSample, event_counts
from jobs.platform.model_choice import champion_serves
from jobs.platform.parts import keep
from jobs.platform.profile import Profile, load_profile
from jobs.platform.warehouse import Partition, Warehouse

MEASURED = 4_000  # items of either kind that drift is measured on, at most
SHOWN_DAYS = 90  # of the drift plot


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run reads."""

    vectors: Partition
    catalog: Partition
    config: CodebookConfig
    """The profile's; where the day has the champion's item space, in the form of its book."""
    book: Partition | None
    """The book of an earlier day, if it may be kept."""
    why_new: str
    """Why it may not; empty if it may."""


@dataclass(frozen=True, slots=True)
class Report:
    """What fit_codebook did."""

    action: Action
    why: str
    generations: int
    arrivals: int
    """Items that arrived since the last fit."""
    drift: Drift | None
    """None for a new book."""

    def __str__(self) -> str:
        lines = [f"codebook: {self.action} ({self.why}), {self.generations} generation(s)"]
        if self.drift is not None and self.arrivals:
            for name, seen in (("arrivals", self.drift.arrivals), ("base pool", self.drift.base)):
                lines.append(
                    f"{name + ':':10s} {seen.vectors:,} measured, cosine {seen.cosine:.4f} (mean vector alone "
                    f"{seen.zero_line:.4f}), {seen.neighbour_recall:.1%} of ten nearest neighbours kept"
                )
        return "\n".join(lines)

    def metrics(self) -> dict[str, float]:
        """Figures by name."""
        found: dict[str, float] = {"generations": self.generations, "arrivals": self.arrivals}
        for name, seen in (("arrivals", self.drift.arrivals), ("base", self.drift.base)) if self.drift else ():
            found |= {f"{name}_{figure}": value for figure, value in dataclasses.asdict(seen).items()}
        return found


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
    recode: cli.RecodeOption = None,
) -> None:
    """Fit the codebook when it is due.

    Writes codebook_drift, and codebook when something was fitted.
    """
    settings = load_profile(profile)
    wh = Warehouse(warehouse)
    inputs = find_inputs(wh, ds, settings.codebook, recode)
    with tracking.stage("fit_codebook", ds=ds, refresh_id=cli.refresh_id_or_default(refresh_id, ds)) as run:
        run.params({"codebook": inputs.config})
        report = fit_codebook(wh, ds, settings, inputs)
        run.metrics(report.metrics())
        read = [inputs.vectors, inputs.catalog]
        if report.action != "kept":
            read.append(wh.partition("histories", ds))
        run.inputs([dataset(wh, partition) for partition in read], "training")
        run.tags({"hymirec.codebook": report.action})
        run.text(str(report), "report.txt")
        run.figure(plots.drift(drift_by_day(wh, ds)), "drift.png")
    print(report)


def find_inputs(wh: Warehouse, ds: str, config: CodebookConfig, recode: str | None = None) -> Inputs:
    """Find the day's vectors and, if it may be kept, the book of an earlier day.

    Raises
    ------
    MissingPartition
        If the day has no item_vectors or no catalog.
    WarehouseError
        If these two are not of the same items.
    """
    vectors, catalog = wh.partition("item_vectors", ds), wh.partition("catalog", ds)
    if vectors.rows is not None and catalog.rows is not None and vectors.rows != catalog.rows:
        raise WarehouseError(
            f"item_vectors/ds={ds} has {vectors.rows:,} rows and catalog/ds={ds} {catalog.rows:,}; "
            "allowed: the same items; run train_item_space for this day again"
        )
    # Strictly before ds: a rerun decides from what the first run saw, not from what that wrote.
    book = wh.latest("codebook", until=ds, strict=True)
    why = ""
    same_space = book is not None and book.info["space_version"] == vectors.info["space_version"]
    if book is not None and same_space and champion_serves(wh, ds):  # else a challenger is made anew (retrain: always)
        config = replace(config, **book.info["config"])
    if book is None:
        why = "there is no codebook yet"
    elif not same_space:
        why = "the item vectors come from another item space"
    elif book.info["config"] != _identity(config):
        why = "the profile asks for another form of book"
    elif recode == "always":
        why = "recode is always"
    return Inputs(vectors, catalog, config, None if why else book, why)


def fit_codebook(wh: Warehouse, ds: str, profile: Profile, inputs: Inputs) -> Report:
    """Write codebook_drift/ds, and codebook/ds when something was fitted.

    Raises
    ------
    InputError
        If there are fewer different item vectors than entries of a layer, or one is not a unit vector.
    SchemaError, WarehouseError
        If a table does not have the columns or the rows it should have.
    """
    config, sample = inputs.config, ItemSample(wh, inputs.vectors, inputs.config.seed)
    fits = inputs.book.info["fits"] if inputs.book else [ds]
    first_ds = columns.days(wh, inputs.catalog, "first_ds")
    arrivals = np.flatnonzero(first_ds > np.datetime64(fits[-1]))
    action: Action = "new book"
    why, drift, book = inputs.why_new, None, ResidualCodebook(config)
    if inputs.book is not None:
        book = ResidualCodebook.load(wh.local_copy(inputs.book))
        book.config = replace(book.config, beam=config.beam)
        base = np.flatnonzero(first_ds <= np.datetime64(fits[0]))
        drift = measure_drift(book, sample.vectors(base, MEASURED), sample.vectors(arrivals, MEASURED), config)
        action = next_action(book, drift, config)
        why = drift.why or f"{len(arrivals):,} arrivals since the last fit need no new generation"
        if action == "new book":
            why, book = f"{why}; the {config.max_generations} of max_generations exist", ResidualCodebook(config)

    if action == "kept" and inputs.book is not None:
        keep(wh, inputs.book, ds)  # what an earlier run of this day fitted must not stay in force
    else:
        fitted_on = np.arange(len(first_ds)) if action == "new book" else arrivals
        events = event_counts(wh, ds, profile, len(first_ds))
        book.partial_fit(*sample.drawn(fitted_on, 1 + events[fitted_on], 2 * config.fit_sample))
        _write(wh, ds, book, inputs, continued=action == "new generation")
    report = Report(action, why, book.generations_, len(arrivals), drift)
    with wh.write_partition("codebook_drift", ds) as part:
        part.info |= {"action": action, **{k: v for k, v in report.metrics().items() if np.isfinite(v)}}
        (part.local / "drift.json").write_text(json.dumps(part.info | {"why": why}, indent=1) + "\n")
    return report


def _write(wh: Warehouse, ds: str, book: ResidualCodebook, inputs: Inputs, *, continued: bool) -> None:
    """Write codebook/ds; a book with one more generation keeps the name that its codes know it by."""
    name, fits = hashlib.sha256(ds.encode() + book.table_.tobytes()).hexdigest()[:16], [ds]
    if continued and inputs.book is not None:
        name, fits = inputs.book.info["book"], [*inputs.book.info["fits"], ds]
    with wh.write_partition("codebook", ds) as part:
        book.save(part.local)
        part.info |= {"book": name, "space_version": inputs.vectors.info["space_version"]}
        part.info |= {"config": _identity(inputs.config), "fits": fits}
        part.info["tables"] = [columns.content(table) for table in book.table_]  # of each generation


def drift_by_day(wh: Warehouse, ds: str) -> dict[str, dict[str, Any]]:
    """What was measured on the last days up to ``ds``."""
    days = [day for day in wh.partitions("codebook_drift") if day <= ds][-SHOWN_DAYS:]
    return {day: wh.partition("codebook_drift", day).info for day in days}


def _identity(config: CodebookConfig) -> dict[str, Any]:
    """Settings that codes depend on for their meaning."""
    return {name: getattr(config, name) for name in ("layers", "size", "form")}


if __name__ == "__main__":
    cli.run(main)
