"""Codes are those of the estimator, stay as long as text and book do, and a collapsed book stops the day."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from hymirec_model.codebook import ResidualCodebook
from hymirec_model.config import CodebookConfig
from jobs import fit_codebook
from jobs.encode_items import Report, encode_items, find_inputs, main, refuse_collapse
from jobs.platform import cli, columns, plots, releases
from jobs.platform.errors import GateRefused, JobError, WarehouseError
from jobs.platform.profile import GateConfig, Profile
from jobs.platform.warehouse import Warehouse
from tests.small_day import item_vectors, profile, write_items
from tests.small_model import table, write_histories

CONFIG = CodebookConfig(layers=4, size=32, iterations=5, drift=0.03)
DAY, NEXT, LATER = "2020-03-20", "2020-03-21", "2020-03-22"
OLD, NEW = item_vectors(900), item_vectors(300, seed=3, centres_seed=77)
FIRST = ["2020-03-01"] * 900


@pytest.fixture
def wh(tmp_path: Path) -> Warehouse:
    wh = Warehouse(str(tmp_path / "warehouse"))
    write_items(wh, DAY, OLD, FIRST)
    return wh


def run(spark: SparkSession, wh: Warehouse, ds: str, gate: GateConfig | None = None, *, fit: bool = True) -> Report:
    if fit:
        write_histories(wh, table(40, 900), ds)
        settings = Profile(name="small", codebook=CONFIG)
        fit_codebook.fit_codebook(wh, ds, settings, fit_codebook.find_inputs(wh, ds, CONFIG))
    return encode_items(spark, wh, ds, find_inputs(wh, ds), CONFIG, gate or GateConfig())


def codes_of(wh: Warehouse, ds: str) -> tuple[np.ndarray, np.ndarray]:
    part = wh.partition("item_codes", ds)
    return columns.column(wh, part, "generation"), columns.vectors(wh, part, "codes")


def bytes_of(wh: Warehouse, ds: str) -> dict[str, bytes]:
    part = wh.partition("item_codes", ds)
    return {name: (wh.local_copy(part) / name).read_bytes() for name in part.files}


def test_first_day_codes_everything_as_one_process_would(spark: SparkSession, wh: Warehouse) -> None:
    report = run(spark, wh, DAY)
    assert (report.items, report.coded, report.counts.shape) == (900, 900, (1, 4, 32))
    assert (report.counts.sum(2) == 900).all() and report.usage > 0.95
    book = ResidualCodebook.load(wh.local_copy(wh.partition("codebook", DAY)))
    stored = columns.vectors(wh, wh.partition("item_vectors", DAY))
    generations, codes = codes_of(wh, DAY)
    assert np.array_equal(codes, book.encode(stored)) and (generations == 0).all()
    seen = report.fidelity
    assert seen.cosine == pytest.approx((book.decode(codes) * stored).sum(1).mean(), abs=1e-5)
    assert seen.cosine > 0.9 > seen.zero_line + 0.2 and 0.4 < seen.neighbour_recall < 1
    part = wh.partition("item_codes", DAY)
    assert list(part.files) == ["from-000000000000.parquet", "from-000000000450.parquet"]
    rows = wh.read(part)
    assert rows.schema.names == ["item_index", "item_id", "text_hash", "generation", "codes"]
    assert rows["item_id"].to_pylist()[:2] == ["item-0", "item-1"]
    assert part.info["usage"] == report.usage and part.rows == 900


@pytest.mark.parametrize("files", [1, 5])
def test_neither_partitioning_nor_a_rerun_changes_a_code(spark: SparkSession, wh: Warehouse, files: int) -> None:
    run(spark, wh, DAY)
    before, facts = codes_of(wh, DAY), wh.partition("item_codes", DAY).info
    bytes_before = bytes_of(wh, DAY)
    run(spark, wh, DAY, fit=False)
    assert bytes_of(wh, DAY) == bytes_before and wh.partition("item_codes", DAY).info == facts
    write_items(wh, DAY, OLD, FIRST, files=files)
    run(spark, wh, DAY, fit=False)
    assert all(np.array_equal(a, b) for a, b in zip(codes_of(wh, DAY), before, strict=True))


@pytest.mark.parametrize("files", [1, 3])
def test_next_day_codes_only_new_items_and_changed_texts(spark: SparkSession, wh: Warehouse, files: int) -> None:
    run(spark, wh, DAY)
    _, before = codes_of(wh, DAY)
    vectors = np.concatenate([OLD, item_vectors(10, seed=9)])
    vectors[5] = vectors[600]
    write_items(wh, NEXT, vectors, FIRST + [NEXT] * 10, texts={5: "another text"}, files=files)
    assert run(spark, wh, NEXT).coded == 11
    _, codes = codes_of(wh, NEXT)
    same = np.delete(np.arange(900), 5)
    assert np.array_equal(codes[same], before[same])
    assert np.array_equal(codes[5], before[600])


def test_a_new_generation_changes_no_old_code_and_a_new_book_all(spark: SparkSession, wh: Warehouse) -> None:
    run(spark, wh, DAY)
    _, before = codes_of(wh, DAY)
    vectors = np.concatenate([OLD, NEW])
    write_items(wh, NEXT, vectors, FIRST + [NEXT] * 300)
    report = run(spark, wh, NEXT)
    assert (report.coded, len(report.counts)) == (300, 2)
    generations, codes = codes_of(wh, NEXT)
    assert np.array_equal(codes[:900], before) and (generations[:900] == 0).all()
    assert (generations[900:] == 1).mean() > 0.9
    book = ResidualCodebook.load(wh.local_copy(wh.partition("codebook", NEXT)))
    assert (book.decode(codes, generations)[900:] * NEW).sum(1).mean() > 0.95

    write_items(wh, LATER, vectors, FIRST + [NEXT] * 300)
    write_histories(wh, table(40, 900), LATER)
    settings = Profile(name="small", codebook=CONFIG)
    again = fit_codebook.find_inputs(wh, LATER, CONFIG, recode="always")
    fit_codebook.fit_codebook(wh, LATER, settings, again)
    report = run(spark, wh, LATER, GateConfig(max_cosine_loss=1), fit=False)
    assert (report.coded, len(report.counts)) == (1200, 1)


def test_codes_of_a_generation_that_was_fitted_anew_are_not_kept(spark: SparkSession, wh: Warehouse) -> None:
    run(spark, wh, DAY)
    first = FIRST + [NEXT] * 300
    write_items(wh, NEXT, np.concatenate([OLD, NEW]), first)
    run(spark, wh, NEXT)
    stale = wh.partition("item_codes", NEXT).info["tables"]
    write_items(wh, NEXT, np.concatenate([OLD, -NEW]), first)  # the day is corrected, its codes are not made again
    inputs = fit_codebook.find_inputs(wh, NEXT, CONFIG)
    fit_codebook.fit_codebook(wh, NEXT, Profile(name="small", codebook=CONFIG), inputs)
    book = wh.partition("codebook", NEXT).info["tables"]
    assert book[:1] == stale[:1] and len(book) == len(stale) == 2 and book[1] != stale[1]
    write_items(wh, LATER, np.concatenate([OLD, -NEW]), first)
    write_histories(wh, table(40, 900), LATER)
    assert run(spark, wh, LATER, GateConfig(max_cosine_loss=1)).coded == 1200


def test_few_codes_in_use_stop_the_day(spark: SparkSession, wh: Warehouse) -> None:
    run(spark, wh, DAY)
    before = bytes_of(wh, DAY)
    write_items(wh, DAY, np.repeat(OLD[:10], 90, axis=0), FIRST)  # what a collapsed encoder leaves
    with pytest.raises(GateRefused, match=r"items use \d+\.\d% of .* allowed: gate\.min_code_usage 90\.0% or more"):
        run(spark, wh, DAY, fit=False)
    assert bytes_of(wh, DAY) == before, "a refused day must leave what was there"


def test_a_worse_book_than_the_last_release_s_stops_the_day(spark: SparkSession, wh: Warehouse) -> None:
    report = run(spark, wh, DAY)
    release = releases.Release(wh, "2020-03-19-0123abcd", {"codebook": {"cosine": report.fidelity.cosine + 0.004}})
    refuse_collapse(report, GateConfig(), release)
    refuse_collapse(report, GateConfig(), None)
    release.manifest["codebook"]["cosine"] += 0.002
    with pytest.raises(GateRefused, match=r"in release 2020-03-19-0123abcd .* a loss of gate\.max_cosine_loss"):
        refuse_collapse(report, GateConfig(), release)
    refuse_collapse(report, GateConfig(max_cosine_loss=0.01), release)


def test_bad_input_is_named(spark: SparkSession, wh: Warehouse) -> None:
    run(spark, wh, DAY)
    with wh.write_partition("item_vectors", NEXT) as part:
        part.write_table(wh.read(wh.partition("item_vectors", DAY)).take(list(range(899, -1, -1))))
        part.info |= wh.partition("item_vectors", DAY).info
    with pytest.raises(JobError, match="table item_vectors, column item_index: seen gaps or another order"):
        run(spark, wh, NEXT, fit=False)
    for value, length in ((0, "0"), (np.nan, "nan"), (3, "12")):
        write_items(wh, NEXT, np.where(np.arange(900)[:, None] == 40, value, OLD), FIRST, texts={40: "new"})
        with pytest.raises(JobError, match=f"1 of 1 are not of unit length; .* of length {length}, required 1"):
            run(spark, wh, NEXT, fit=False)
    write_items(wh, NEXT, OLD[:800], FIRST[:800])
    with pytest.raises(WarehouseError, match="900 items, item_vectors/ds=2020-03-21 only 800"):
        run(spark, wh, NEXT, fit=False)
    write_items(wh, NEXT, OLD, FIRST, space_version="e2")
    with pytest.raises(WarehouseError, match=r"seen space_version e1; allowed: e2, .*; run fit_codebook"):
        run(spark, wh, NEXT, fit=False)
    assert wh.partitions("item_codes") == [DAY]


def test_a_generation_that_the_book_lacks_is_named(spark: SparkSession, wh: Warehouse) -> None:
    run(spark, wh, DAY)
    seen = wh.partition("item_codes", DAY)
    with wh.write_partition("item_codes", DAY) as part:
        part.info = dict(seen.info)
        for name in seen.files:
            codes = wh.read(replace(seen, files={name: seen.files[name]}))
            part.write_table(codes.set_column(3, "generation", pa.array(np.full(len(codes), 7, np.uint8))), name)
    write_items(wh, NEXT, OLD, FIRST)
    with pytest.raises(JobError, match="generation: got 7 to 7, the book has 0 to 0: codes and book are of different"):
        run(spark, wh, NEXT, fit=False)


def test_usage_plot_counts_every_generation(spark: SparkSession, wh: Warehouse) -> None:
    report = run(spark, wh, DAY)
    counts = np.concatenate([report.counts, np.zeros_like(report.counts)])
    figure = plots.usage(counts)
    assert figure.axes[0].get_title() == f"Generation 0: {report.usage:.1%} of its entries in use"
    assert figure.axes[1].get_title() == "Generation 1: 0.0% of its entries in use"
    assert [len(axis.lines) for axis in figure.axes[:2]] == [4, 4]
    assert figure.axes[0].lines[0].get_ydata().tolist() == sorted(report.counts[0, 0], reverse=True)


def test_command_line(spark: SparkSession, wh: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_histories(wh, table(40, 900))
    given = ["--warehouse", wh.uri, "--ds", DAY, "--profile", profile(tmp_path), "--refresh-id", "codes-cli"]
    for job in (fit_codebook.main, main):
        with pytest.raises(SystemExit) as ended:
            cli.run(job, given)
        assert ended.value.code == 0
    assert "codes: 900 of 900 items coded anew, 1 generation(s)" in capsys.readouterr().out
    client = MlflowClient()
    experiment = client.get_experiment_by_name("hymirec")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`hymirec.refresh_id` = 'codes-cli'")
    stage = next(r for r in runs if r.info.run_name == "encode_items")
    assert stage.data.metrics["cosine"] > 0.9 > stage.data.metrics["zero_line"]
    assert stage.data.metrics["usage"] > 0.9
    assert {a.path for a in client.list_artifacts(stage.info.run_id)} == {"report.txt", "usage.png"}
    assert json.loads(json.dumps(wh.partition("item_codes", DAY).info))["neighbour_recall"] > 0
