from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from hymirec_model.codebook import ResidualCodebook
from hymirec_model.config import CodebookConfig
from hymirec_model.errors import InputError
from jobs.fit_codebook import Report, find_inputs, fit_codebook, main
from jobs.platform import cli, columns
from jobs.platform.errors import SchemaError, WarehouseError
from jobs.platform.profile import Profile
from jobs.platform.warehouse import Warehouse
from tests.small_day import item_vectors, profile, write_items
from tests.small_model import table, write_histories

CONFIG = CodebookConfig(layers=4, size=32, iterations=5)
DAY, NEXT = "2020-03-20", "2020-03-27"
OLD, NEW = item_vectors(900), item_vectors(300, seed=3, centres_seed=77)
FIRST = ["2020-03-01"] * 900


@pytest.fixture
def wh(tmp_path: Path) -> Warehouse:
    wh = Warehouse(str(tmp_path / "warehouse"))
    write_items(wh, DAY, OLD, FIRST)
    return wh


def run(wh: Warehouse, ds: str, config: CodebookConfig = CONFIG) -> Report:
    write_histories(wh, table(40, 900), ds)
    return fit_codebook(wh, ds, Profile(name="small", codebook=config), find_inputs(wh, ds, config))


def codes_of(wh: Warehouse, ds: str) -> tuple[np.ndarray, np.ndarray]:
    part = wh.partition("item_codes", ds)
    return columns.column(wh, part, "generation"), columns.vectors(wh, part, "codes")


def bytes_of(wh: Warehouse, table: str, ds: str) -> dict[str, bytes]:
    part = wh.partition(table, ds)
    return {name: (wh.local_copy(part) / name).read_bytes() for name in part.files}


def test_first_day_fits_a_book_and_codes_everything(wh: Warehouse) -> None:
    report = run(wh, DAY)
    assert (report.action, report.coded, report.generations) == ("new book", 900, 1)
    assert report.cosine > 0.9 > report.zero_line + 0.2
    book = ResidualCodebook.load(wh.local_copy(wh.partition("codebook", DAY)))
    generations, codes = codes_of(wh, DAY)
    stored = columns.vectors(wh, wh.partition("item_vectors", DAY))
    assert np.array_equal(codes, book.encode(stored)) and (generations == 0).all()
    table = wh.read(wh.partition("item_codes", DAY))
    assert table.schema.names == ["item_index", "item_id", "generation", "codes"]
    assert table["item_id"].to_pylist()[:2] == ["item-0", "item-1"]


def test_rerun_gives_the_same_bytes(wh: Warehouse) -> None:
    run(wh, DAY)
    before = [bytes_of(wh, name, DAY) for name in ("codebook", "item_codes")]
    run(wh, DAY)
    assert [bytes_of(wh, name, DAY) for name in ("codebook", "item_codes")] == before


def test_items_first_seen_after_the_cut_do_not_shape_the_book(wh: Warehouse) -> None:
    run(wh, DAY)
    before = bytes_of(wh, "codebook", DAY)
    vectors = np.concatenate([OLD, NEW])
    write_items(wh, DAY, vectors, FIRST + ["2020-03-14"] * 300)  # the cut of a seven-day holdout
    report = run(wh, DAY)
    assert bytes_of(wh, "codebook", DAY) == before
    assert report.coded == 1200
    write_items(wh, DAY, vectors, FIRST + ["2020-03-13"] * 300)
    run(wh, DAY)
    assert bytes_of(wh, "codebook", DAY) != before


def test_next_day_codes_only_new_items_and_changed_texts(wh: Warehouse) -> None:
    run(wh, DAY)
    _, codes_before = codes_of(wh, DAY)
    vectors = np.concatenate([OLD, item_vectors(10, seed=9)])
    vectors[5] = vectors[600]
    write_items(wh, NEXT, vectors, FIRST + [NEXT] * 10, texts={5: "another text"})
    report = run(wh, NEXT)
    assert (report.action, report.coded) == ("kept", 11)
    assert wh.partitions("codebook") == [DAY]
    _, codes = codes_of(wh, NEXT)
    same = np.delete(np.arange(900), 5)
    assert np.array_equal(codes[same], codes_before[same])
    assert np.array_equal(codes[5], codes_before[600])


def test_drift_brings_a_new_generation_and_no_old_code_changes(wh: Warehouse) -> None:
    run(wh, DAY)
    vectors, first = np.concatenate([OLD, NEW]), FIRST + ["2020-03-20"] * 300
    write_items(wh, "2020-03-21", vectors, first)
    report = run(wh, "2020-03-21")
    assert (report.action, report.arrivals) == ("kept", 0), "arrivals of the held-out days were looked at"

    write_items(wh, NEXT, vectors, first)
    report = run(wh, NEXT)
    assert (report.action, report.generations, report.arrivals) == ("new generation", 2, 300)
    assert report.coded == 0
    generations_before, codes_before = codes_of(wh, "2020-03-21")
    generations, codes = codes_of(wh, NEXT)
    assert np.array_equal(codes, codes_before) and np.array_equal(generations, generations_before)

    later = np.concatenate([vectors, item_vectors(50, seed=4, centres_seed=77), item_vectors(50, seed=5)])
    write_items(wh, "2020-03-28", later, first + ["2020-03-28"] * 100)
    report = run(wh, "2020-03-28")
    assert (report.action, report.coded) == ("kept", 100)
    generations, codes = codes_of(wh, "2020-03-28")
    assert (generations[1200:1250] == 1).mean() > 0.9 and (generations[1250:] == 0).mean() > 0.9
    book = ResidualCodebook.load(wh.local_copy(wh.latest("codebook")))  # type: ignore[arg-type]
    assert (book.decode(codes, generations)[1200:1250] * later[1200:1250]).sum(1).mean() > 0.85


def test_arrivals_like_the_others_bring_none(wh: Warehouse) -> None:
    run(wh, DAY)
    write_items(wh, NEXT, np.concatenate([OLD, item_vectors(300, seed=8)]), FIRST + ["2020-03-20"] * 300)
    run(wh, NEXT)
    write_items(wh, "2020-03-28", np.concatenate([OLD, item_vectors(300, seed=8)]), FIRST + ["2020-03-20"] * 300)
    report = run(wh, "2020-03-28")
    assert (report.action, report.arrivals) == ("kept", 300) and "drift of 0.05 allowed" in report.why


def test_another_item_space_or_form_starts_a_new_book(wh: Warehouse) -> None:
    run(wh, DAY)
    write_items(wh, NEXT, OLD[::-1], FIRST, space_version="e2")
    report = run(wh, NEXT)
    assert (report.action, report.why) == ("new book", "the item vectors come from another item space")
    assert report.coded == 900
    write_items(wh, NEXT, OLD, FIRST)
    assert run(wh, NEXT).action == "kept"
    assert wh.partition("codebook", NEXT).info["book"] == wh.partition("codebook", DAY).info["book"]
    other = CodebookConfig(layers=2, size=32, iterations=5)
    assert "another form" in run(wh, NEXT, other).why


def test_bad_input_is_named(wh: Warehouse) -> None:
    with pytest.raises(InputError, match="0 distinct ones of 0, but 32 entries"):
        write_items(wh, NEXT, OLD, [NEXT] * 900)
        run(wh, NEXT)
    write_items(wh, NEXT, np.where(np.arange(900)[:, None] == 40, 0, OLD), FIRST)
    with pytest.raises(InputError, match="row 40 of length 0"):
        run(wh, NEXT)
    with wh.write_partition("item_vectors", NEXT) as part:
        table = wh.read(wh.partition("item_vectors", DAY))
        part.write_table(table.take(list(range(899, -1, -1))))
        part.info |= {"space_version": "e1", "dim": 16}
    write_catalog_only = wh.read(wh.partition("catalog", DAY))
    with wh.write_partition("catalog", NEXT) as part:
        part.write_table(write_catalog_only)
    with pytest.raises(SchemaError, match="table item_vectors, column item_index: seen gaps or another order"):
        run(wh, NEXT)
    assert wh.partitions("item_codes") == []

    run(wh, DAY)
    write_items(wh, NEXT, OLD[:800], FIRST[:800])
    with pytest.raises(WarehouseError, match="900 items, catalog/ds=2020-03-27 only 800"):
        run(wh, NEXT)
    with wh.write_partition("catalog", NEXT) as part:
        part.write_table(write_catalog_only)
    with pytest.raises(WarehouseError, match="has 800 rows and catalog/ds=2020-03-27 900"):
        run(wh, NEXT)


def test_command_line(wh: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_histories(wh, table(40, 900))
    settings = profile(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.run(main, ["--warehouse", wh.uri, "--ds", DAY, "--profile", settings, "--refresh-id", "codebook-cli"])
    assert ended.value.code == 0
    assert "codebook: new book (there is no codebook yet), 1 generation(s)" in capsys.readouterr().out
    client = MlflowClient()
    experiment = client.get_experiment_by_name("hymirec")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`hymirec.refresh_id` = 'codebook-cli'")
    stage = next(r for r in runs if r.info.run_name == "fit_codebook")
    assert stage.data.metrics["cosine"] > 0.9 > stage.data.metrics["cosine_of_mean_vector"]
    assert len(client.get_metric_history(stage.info.run_id, "usage")) == 4

    with pytest.raises(SystemExit) as ended:
        cli.run(main, ["--warehouse", wh.uri, "--ds", "2020-03-21", "--profile", settings])
    assert ended.value.code == 2
    assert "missing partition item_vectors/ds=2020-03-21: newest there is ds=2020-03-20" in capsys.readouterr().err
