"""Fit the residual codebook when it is due, and give every item its codes.

Reads ``item_vectors/ds``, ``catalog/ds`` and ``histories/ds`` without the held-out days, and the codebook and codes of
the day before. Writes ``item_codes/ds``, and ``codebook/ds`` when something was fitted:

- a new book when there is none yet, or the item vectors come from another item space, or the profile asks for
  another form;
- a new generation of the book when the items that arrived since the last fit are rebuilt worse than the others by
  more than ``codebook.drift`` (mean cosine) and there are at least four of them for each entry of a layer;
- otherwise nothing: new items, and items whose text changed, are coded with the book as it is.

Codes of other items never change within a book. Only items known before the evaluation cut are fitted on, weighted by
their events: codes are decoded in histories, where few items come often.
The demo takes about 30 s on two cores, and seconds on a day without a fit.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hymirec_model.codebook import ResidualCodebook
from hymirec_model.config import CodebookConfig
from jobs.platform import cli, columns, tracking
from jobs.platform.errors import WarehouseError
from jobs.platform.item_codes import ItemCodes
from jobs.platform.profile import Profile, load_profile
from jobs.platform.training import evaluation_cut, training_histories
from jobs.platform.warehouse import Partition, Warehouse

ENOUGH = 4  # arrivals for each entry of a layer, before a new generation is fitted on them
MEASURED = 20_000  # items that reconstruction and drift are measured on, at most


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run reads."""

    vectors: Partition
    catalog: Partition
    book: Partition | None
    """The book of an earlier day, if its codes may be kept."""
    codes: Partition | None
    """Codes that were made with it."""
    why_new: str
    """Why `book` may not be kept; empty if it may."""


@dataclass(frozen=True, slots=True)
class Report:
    """What fit_codebook did."""

    action: str
    """"new book", "new generation" or "kept"."""
    why: str
    items: int
    coded: int
    generations: int
    cosine: float
    """Mean cosine of item vectors and their reconstructions."""
    zero_line: float
    """The same if every item were rebuilt as the mean vector."""
    arrivals: int
    """Items that arrived since the last fit, known before the cut."""
    arrivals_cosine: float
    usage: tuple[float, ...]
    """Share of a layer's entries that items use, for each layer."""

    def __str__(self) -> str:
        return (
            f"codebook: {self.action} ({self.why}), {self.generations} generation(s)\n"
            f"codes:    {self.coded:,} of {self.items:,} items coded, mean cosine {self.cosine:.4f} "
            f"(mean vector alone {self.zero_line:.4f}), least used layer {min(self.usage):.0%} of its entries"
        )


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Fit the codebook when it is due, and code the items.

    Writes item_codes, and codebook when something was fitted.
    """
    settings = load_profile(profile)
    wh = Warehouse(warehouse)
    inputs = find_inputs(wh, ds, settings.codebook)
    with tracking.stage("fit_codebook", ds=ds, refresh_id=cli.refresh_id_or_default(refresh_id, ds)) as run:
        run.params({"codebook": settings.codebook})
        report = fit_codebook(wh, ds, settings, inputs)
        run.metrics(
            {
                "items": report.items,
                "coded": report.coded,
                "generations": report.generations,
                "cosine": report.cosine,
                "cosine_of_mean_vector": report.zero_line,
                "arrivals": report.arrivals,
                "arrivals_cosine": report.arrivals_cosine,
            }
        )
        for layer, share in enumerate(report.usage):
            run.metrics({"usage": share}, step=layer)
        run.tags({"hymirec.codebook": report.action})
        run.text(str(report), "report.txt")
    print(report)


def find_inputs(wh: Warehouse, ds: str, config: CodebookConfig) -> Inputs:
    """Find the day's vectors and, if it may be kept, the book of an earlier day with its codes.

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
    codes = wh.latest("item_codes", until=ds, strict=True)
    why = ""
    if book is None or codes is None:
        why = "there is no codebook yet"
    elif book.info["space_version"] != vectors.info["space_version"]:
        why = "the item vectors come from another item space"
    elif book.info["config"] != _identity(config):
        why = "the profile asks for another form of book"
    elif codes.info["book"] != book.info["book"] or codes.info["generations"] != len(book.info["fits"]):
        why = f"the codes of ds={codes.ds} were not made with the codebook of ds={book.ds}"
    if why:
        book = codes = None
    return Inputs(vectors, catalog, book, codes, why)


def fit_codebook(wh: Warehouse, ds: str, profile: Profile, inputs: Inputs) -> Report:
    """Write item_codes/ds, and codebook/ds when something was fitted.

    Raises
    ------
    InputError
        If fewer items than entries of a layer are known before the cut, or a vector is not a unit vector.
    SchemaError, WarehouseError
        If a table does not have the columns or the rows it should have.
    """
    config, cut = profile.codebook, evaluation_cut(ds, profile.evaluation.holdout_days).date().isoformat()
    first_ds = columns.column(wh, inputs.catalog, "first_ds").astype("U10")
    stored = ItemCodes.kept(wh, inputs.vectors, inputs.codes, len(first_ds), config.layers)
    sample = _Sample(wh, inputs.vectors, config.seed)

    def weighted(items: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.int64]]:
        events = np.bincount(training_histories(wh, ds, profile).items, minlength=len(first_ds))
        return sample.drawn(items, 1 + events[items], 2 * config.fit_sample)

    arrivals, arrivals_cosine = np.empty(0, np.int64), float("nan")
    if inputs.book is None:
        action, why = "new book", inputs.why_new
        known = np.flatnonzero(first_ds < cut)
        book = ResidualCodebook(config).fit(*weighted(known))
        name, fits = hashlib.sha256(book.table_.tobytes()).hexdigest()[:16], [{"ds": ds, "cut": cut}]
    else:
        action = "kept"
        book = ResidualCodebook.load(wh.local_copy(inputs.book))
        book.config = replace(book.config, beam=config.beam)
        name, fits = inputs.book.info["book"], list(inputs.book.info["fits"])
        base = np.flatnonzero((first_ds < fits[0]["cut"]) & ~stored.missing)
        arrivals = np.flatnonzero((first_ds >= fits[-1]["cut"]) & (first_ds < cut) & ~stored.missing)
        base_cosine = _cosine(sample, base, book, stored)
        arrivals_cosine = _cosine(sample, arrivals, book, stored)
        needed = ENOUGH * config.size
        why = f"{len(arrivals):,} arrivals since the last fit, a new generation needs {needed:,}"
        if len(arrivals) >= needed:
            why = f"cosine {arrivals_cosine:.4f}, of others {base_cosine:.4f}, drift of {config.drift} allowed"
            if base_cosine - arrivals_cosine > config.drift:
                action = "new generation"
                book.partial_fit(*weighted(arrivals))
                fits.append({"ds": ds, "cut": cut})

    facts = {"book": name, "space_version": inputs.vectors.info["space_version"]}
    # A rerun that fits nothing where an earlier run did must not leave that run's book behind.
    if action != "kept" or wh.latest("codebook", until=ds) != inputs.book:
        with wh.write_partition("codebook", ds) as part:
            book.save(part.local)
            part.info |= facts | {"config": _identity(config), "fits": fits}
    coded = int(stored.missing.sum())
    with wh.write_partition("item_codes", ds) as part:
        stored.complete(wh, inputs.vectors, book, part.local / "part-00000.parquet")
        part.rows = len(first_ds)
        part.info |= facts | {"generations": len(fits), "layers": config.layers}

    everyone = np.arange(len(first_ds))
    measured = sample.vectors(everyone, MEASURED).astype(np.float32)
    mean = measured.mean(0)
    return Report(
        action=action,
        why=why,
        items=len(first_ds),
        coded=coded,
        generations=len(fits),
        cosine=_cosine(sample, everyone, book, stored),
        zero_line=float((measured @ (mean / np.linalg.norm(mean))).mean()),
        arrivals=len(arrivals),
        arrivals_cosine=arrivals_cosine,
        usage=stored.usage(book),
    )


@dataclass(frozen=True, slots=True)
class _Sample:
    """Vectors of sampled items, streamed from the table."""

    wh: Warehouse
    table: Partition
    seed: int

    def rows(self, items: npt.NDArray[np.int64], limit: int) -> npt.NDArray[np.int64]:
        """At most `limit` of the items, in ascending order."""
        if len(items) <= limit:
            return items
        return np.sort(np.random.default_rng(self.seed).choice(items, limit, replace=False))

    def drawn(
        self, items: npt.NDArray[np.int64], weight: npt.NDArray[np.integer], limit: int
    ) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.int64]]:
        """Vectors of `limit` draws by weight, and how often each was drawn."""
        share = weight / weight.sum() if len(items) else None
        draws = np.random.default_rng(self.seed).choice(items, limit if len(items) else 0, p=share)
        rows, times = np.unique(draws, return_counts=True)
        return columns.vectors(self.wh, self.table, rows=rows), times

    def vectors(self, items: npt.NDArray[np.int64], limit: int) -> npt.NDArray[np.floating]:
        return columns.vectors(self.wh, self.table, rows=self.rows(items, limit))


def _cosine(sample: _Sample, items: npt.NDArray[np.int64], book: ResidualCodebook, stored: ItemCodes) -> float:
    """Mean cosine of at most MEASURED items and what their codes stand for."""
    rows = sample.rows(items, MEASURED)
    if not len(rows):
        return float("nan")
    rebuilt = book.decode(stored.codes[rows], stored.generations[rows])
    return float((rebuilt * sample.vectors(items, MEASURED)).sum(1).mean())


def _identity(config: CodebookConfig) -> dict[str, Any]:
    """Settings that codes depend on for their meaning."""
    return {name: getattr(config, name) for name in ("layers", "size", "form")}


if __name__ == "__main__":
    cli.run(main)
