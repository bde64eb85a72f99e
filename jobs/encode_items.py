"""Give every item its codes, and stop the refresh when the codebook has collapsed.

Reads ``item_vectors/ds`` and the newest codebook, and ``item_codes`` of an earlier day. Writes ``item_codes/ds``:
generation and codes of each item. An item keeps its codes as long as the book and its text are the same; new ones get
those of the generation that serves them best.

The codebook has collapsed when less than ``gate.min_code_usage`` of its first generation's entries are in use, or the
mean cosine of items and what their codes stand for is lower than in the last release by more than
``gate.max_cosine_loss``. Then nothing is written.

Spark hands a row group of item_vectors to a task. The demo's 92,331 items take about half a minute on two cores.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from hymirec_model.codebook import ResidualCodebook
from hymirec_model.codebook_drift import Fidelity, fidelity
from hymirec_model.config import CodebookConfig
from jobs.platform import cli, columns, plots, releases, tracking
from jobs.platform.errors import GateRefused, JobError, WarehouseError
from jobs.platform.file_progress import file_progress
from jobs.platform.item_codes import RESULT, TASK, SliceCoding
from jobs.platform.item_sample import ItemSample
from jobs.platform.profile import GateConfig, load_profile
from jobs.platform.spark import session
from jobs.platform.warehouse import Partition, Warehouse

MEASURED = 20_000  # items that the zero line is measured on, at most; neighbours among fewer


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run reads."""

    vectors: Partition
    book: Partition
    kept: Partition | None
    """Codes of an earlier day that may be kept."""


@dataclass(frozen=True, slots=True)
class Report:
    """What encode_items did."""

    items: int
    coded: int
    """Items that got new codes."""
    counts: npt.NDArray[np.int64]
    """Items by generation, layer and entry: (G, L, k)."""
    fidelity: Fidelity
    """`cosine` of all items, the rest of a sample."""

    @property
    def usage(self) -> float:
        """Share of the first generation's entries that items use."""
        return float((self.counts[0] > 0).mean())

    def facts(self) -> dict[str, float]:
        """Figures that a release keeps."""
        measured = dataclasses.asdict(self.fidelity)
        return {name: measured[name] for name in ("cosine", "zero_line", "neighbour_recall")} | {"usage": self.usage}

    def __str__(self) -> str:
        seen = self.fidelity
        return (
            f"codes: {self.coded:,} of {self.items:,} items coded anew, {len(self.counts)} generation(s)\n"
            f"mean cosine {seen.cosine:.4f} (mean vector alone {seen.zero_line:.4f}), {seen.neighbour_recall:.1%} of "
            f"ten nearest neighbours kept, {self.usage:.1%} of the first generation's entries in use"
        )


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Give every item its codes.

    Writes item_codes, unless the codebook has collapsed.
    """
    settings = load_profile(profile)
    wh = Warehouse(warehouse)
    inputs = find_inputs(wh, ds)
    tracking.preload()
    spark = session("encode_items")
    with tracking.stage("encode_items", ds=ds, refresh_id=cli.refresh_id_or_default(refresh_id, ds)) as run:
        run.params({"book": inputs.book.info["book"], "gate": settings.gate})
        report = encode_items(spark, wh, ds, inputs, settings.codebook, settings.gate)
        run.metrics({"items": report.items, "coded": report.coded, **report.facts()})
        run.text(str(report), "report.txt")
        run.figure(plots.usage(report.counts), "usage.png")
    print(report)


def find_inputs(wh: Warehouse, ds: str) -> Inputs:
    """Find the day's vectors, the newest book, and earlier codes that were made with it.

    Raises
    ------
    MissingPartition
        If the day has no item_vectors, or there is no codebook.
    WarehouseError
        If the book was made for another item space.
    """
    vectors = wh.partition("item_vectors", ds)
    book = wh.latest("codebook", until=ds) or wh.partition("codebook", ds)
    if book.info["space_version"] != vectors.info["space_version"]:
        raise WarehouseError(
            f"codebook/ds={book.ds}: seen space_version {book.info['space_version']}; allowed: "
            f"{vectors.info['space_version']}, that of item_vectors/ds={ds}; run fit_codebook for this day again"
        )
    kept = wh.latest("item_codes", until=ds, strict=True)
    # A day that was run again may have fitted another generation under the book's name.
    if kept is not None and kept.info["tables"] != book.info["tables"][: len(kept.info["tables"])]:
        kept = None
    return Inputs(vectors, book, kept)


def encode_items(
    spark: SparkSession, wh: Warehouse, ds: str, inputs: Inputs, config: CodebookConfig, gate: GateConfig
) -> Report:
    """Write item_codes/ds.

    Raises
    ------
    GateRefused
        If the codebook has collapsed.
    InputError
        If an item vector is not a unit vector.
    JobError
        If item_vectors is not in the order of item_index.
    WarehouseError
        If item_vectors has fewer items than on an earlier day.
    """
    groups = columns.row_groups(wh, inputs.vectors)
    items = sum(group.rows for group in groups)
    if inputs.kept is not None and (inputs.kept.rows or 0) > items:
        raise WarehouseError(
            f"item_codes/ds={inputs.kept.ds} has {inputs.kept.rows:,} items, item_vectors/ds={ds} only {items:,}; "
            "allowed: a catalogue that only grows; run the days again in order"
        )
    book = ResidualCodebook.load(wh.local_copy(inputs.book))
    with wh.write_partition("item_codes", ds) as part:
        target = part.path.removeprefix(f"{wh.uri}/")
        task = SliceCoding(wh.uri, inputs.vectors, inputs.book, config.beam, inputs.kept, target)
        todo = spark.createDataFrame([dataclasses.astuple(group) for group in groups], TASK)
        with file_progress(wh, target, len(groups), "codes"):
            done = (
                todo.repartitionByRange(len(groups), "start")
                .mapInArrow(task, RESULT)
                .groupBy("error", "generation", "layer", "code")
                .agg(*(F.sum(name).alias(name) for name in ("items", "coded", "cosine")))
                .collect()
            )
        errors = sorted(row.error for row in done if row.error)
        if errors:
            raise JobError(errors[0])
        counts = np.zeros(book.table_.shape[:3], np.int64)
        for row in done:
            counts[row.generation, row.layer, row.code] = row["items"]
        coded = sum(row.coded for row in done if row.layer == 0)
        cosine = round(sum(row.cosine for row in done) / items, 6)  # the order of the sum is Spark's
        sampled = _sampled(wh, inputs.vectors, wh.unfinished(part), book, items)
        seen = dataclasses.replace(sampled, vectors=items, cosine=cosine)
        report = Report(items, coded, counts, seen)
        refuse_collapse(report, gate, releases.before(wh, ds))
        part.rows = items
        part.info |= {name: inputs.book.info[name] for name in ("book", "tables", "space_version")}
        part.info |= {"generations": len(counts), "layers": book.config.layers, **report.facts()}
    return report


def refuse_collapse(report: Report, gate: GateConfig, before: releases.Release | None) -> None:
    """Raise GateRefused if too few codes are in use, or items are served worse than in the release before."""
    if report.usage < gate.min_code_usage:
        raise GateRefused(
            f"codebook: items use {report.usage:.1%} of the first generation's codes; allowed: gate.min_code_usage "
            f"{gate.min_code_usage:.1%} or more. The item vectors may have collapsed: look at item_vectors and their "
            "training; fewer items than codes want a smaller codebook.size"
        )
    if before is None:
        return
    cosine = float(before.manifest["codebook"]["cosine"])
    if report.fidelity.cosine < cosine - gate.max_cosine_loss:
        raise GateRefused(
            f"codebook: items and their codes have mean cosine {report.fidelity.cosine:.4f}, in release {before.id} "
            f"{cosine:.4f}; allowed: a loss of gate.max_cosine_loss {gate.max_cosine_loss}. Code all items anew "
            "(recode: always), or allow a greater loss in the profile if the new item space is to be coded less exactly"
        )


def _sampled(wh: Warehouse, vectors: Partition, codes: Partition, book: ResidualCodebook, items: int) -> Fidelity:
    """Fidelity of sampled items, from the codes that were written."""
    rows = ItemSample(wh, vectors, book.config.seed).rows(np.arange(items), MEASURED)
    stored: list[Any] = [columns.vectors(wh, codes, "codes", rows), columns.column(wh, codes, "generation")[rows]]
    order = np.random.default_rng(book.config.seed).permutation(len(rows))
    return fidelity(columns.vectors(wh, vectors, rows=rows)[order], book.decode(*stored)[order])


if __name__ == "__main__":
    cli.run(main)
