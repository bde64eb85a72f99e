from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from hymirec_model.codebook import ResidualCodebook
from hymirec_model.config import CodebookConfig
from hymirec_model.errors import InputError
from jobs.fit_codebook import Report, drift_by_day, find_inputs, fit_codebook, main
from jobs.platform import cli, plots
from jobs.platform.errors import WarehouseError
from jobs.platform.profile import Profile
from jobs.platform.warehouse import Warehouse
from tests.small_day import item_vectors, profile, write_items
from tests.small_model import table, write_histories

CONFIG = CodebookConfig(layers=4, size=32, iterations=5, drift=0.03)
DAY, NEXT, LATER = "2020-03-20", "2020-03-21", "2020-03-22"
OLD, NEW, NEWER = item_vectors(900), item_vectors(300, 3, centres_seed=77), item_vectors(300, 4, centres_seed=78)
FIRST = ["2020-03-01"] * 900


@pytest.fixture
def wh(tmp_path: Path) -> Warehouse:
    wh = Warehouse(str(tmp_path / "warehouse"))
    write_items(wh, DAY, OLD, FIRST)
    return wh


def run(wh: Warehouse, ds: str, config: CodebookConfig = CONFIG, recode: str | None = None) -> Report:
    write_histories(wh, table(40, 900), ds)
    return fit_codebook(wh, ds, Profile(name="small", codebook=config), find_inputs(wh, ds, config, recode))


def book_of(wh: Warehouse, until: str) -> ResidualCodebook:
    found = wh.latest("codebook", until=until)
    assert found is not None
    return ResidualCodebook.load(wh.local_copy(found))


def bytes_of(wh: Warehouse, table: str, ds: str) -> dict[str, bytes]:
    part = wh.partition(table, ds)
    return {name: (wh.local_copy(part) / name).read_bytes() for name in part.files}


def with_arrivals(wh: Warehouse, ds: str, *arrivals: np.ndarray, first: str = NEXT) -> None:
    write_items(wh, ds, np.concatenate([OLD, *arrivals]), FIRST + [first] * sum(map(len, arrivals)))


def test_a_generation_is_fitted_where_few_arrivals_have_nearly_all_events(
    wh: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(wh, DAY)
    with_arrivals(wh, NEXT, NEW[:40])
    events = np.zeros(940, np.int64)
    events[900:910] = 10**7
    monkeypatch.setattr("jobs.fit_codebook.event_counts", lambda *_: events)
    assert run(wh, NEXT).action == "new generation"


def test_first_day_fits_a_book(wh: Warehouse) -> None:
    report = run(wh, DAY)
    assert (report.action, report.generations, report.drift) == ("new book", 1, None)
    book = book_of(wh, DAY)
    assert (book.decode(book.encode(OLD)) * OLD).sum(1).mean() > 0.9
    assert wh.partition("codebook_drift", DAY).info["action"] == "new book"


def test_rerun_gives_the_same_bytes(wh: Warehouse) -> None:
    run(wh, DAY)
    before = [bytes_of(wh, name, DAY) for name in ("codebook", "codebook_drift")]
    run(wh, DAY)
    assert [bytes_of(wh, name, DAY) for name in ("codebook", "codebook_drift")] == before


def test_a_quiet_day_keeps_the_book(wh: Warehouse) -> None:
    run(wh, DAY)
    with_arrivals(wh, NEXT, item_vectors(300, seed=8))
    report = run(wh, NEXT)
    assert (report.action, report.arrivals) == ("kept", 300)
    assert report.drift is not None and report.drift.base.cosine - report.drift.arrivals.cosine < CONFIG.drift
    assert report.drift.arrivals.cosine > report.drift.arrivals.zero_line + 0.2
    assert wh.partitions("codebook") == [DAY]


def test_drift_brings_a_new_generation_on_the_day_itself(wh: Warehouse) -> None:
    run(wh, DAY)
    first = book_of(wh, DAY).table_
    with_arrivals(wh, NEXT, NEW)
    report = run(wh, NEXT)
    assert (report.action, report.generations, report.arrivals) == ("new generation", 2, 300)
    assert "300 different arrivals have cosine" in report.why and "drift of 0.03" in report.why
    book = book_of(wh, NEXT)
    assert np.array_equal(book.table_[0], first[0])
    codes, generations = book.encode_best(NEW)[::-1]
    assert (book.decode(codes, generations) * NEW).sum(1).mean() > report.drift.arrivals.cosine + 0.03  # type: ignore[union-attr]

    write_items(wh, LATER, np.concatenate([OLD, NEW, item_vectors(90, 9, 77)]), FIRST + [NEXT] * 300 + [LATER] * 90)
    report = run(wh, LATER)
    assert (report.action, report.arrivals) == ("kept", 90), "the second generation knows such items"


def test_a_few_strange_arrivals_wait_for_more(wh: Warehouse) -> None:
    run(wh, DAY)
    with_arrivals(wh, NEXT, np.repeat(NEW[:31], 9, axis=0))
    report = run(wh, NEXT)
    assert (report.action, report.arrivals) == ("kept", 279), "only 31 of them differ, a layer has 32 entries"
    with_arrivals(wh, LATER, NEW[:32])
    assert run(wh, LATER).action == "new generation"


def test_generations_are_merged_at_their_bound_and_on_request(wh: Warehouse) -> None:
    config = replace(CONFIG, max_generations=2)
    run(wh, DAY, config)
    with_arrivals(wh, NEXT, NEW)
    assert run(wh, NEXT, config).generations == 2
    name = wh.partition("codebook", NEXT).info["book"]
    write_items(wh, LATER, np.concatenate([OLD, NEW, NEWER]), FIRST + [NEXT] * 300 + [LATER] * 300)
    report = run(wh, LATER, config)
    assert (report.action, report.generations) == ("new book", 1)
    assert "the 2 of max_generations exist" in report.why
    assert wh.partition("codebook", LATER).info["book"] != name

    assert run(wh, LATER).generations == 3, "a rerun that may have more adds one"
    report = run(wh, LATER, recode="always")
    assert (report.action, report.why, report.generations) == ("new book", "recode is always", 1)
    assert wh.partition("codebook", LATER).info["fits"] == [LATER]


def test_a_rerun_that_fits_nothing_leaves_no_other_book_in_force(wh: Warehouse) -> None:
    run(wh, DAY)
    with_arrivals(wh, NEXT, NEW)
    run(wh, NEXT)
    with_arrivals(wh, NEXT, NEW[:5])
    assert run(wh, NEXT).action == "kept"
    assert bytes_of(wh, "codebook", NEXT) == bytes_of(wh, "codebook", DAY)
    assert wh.partition("codebook", NEXT).info == wh.partition("codebook", DAY).info


def test_another_item_space_or_form_starts_a_new_book(wh: Warehouse) -> None:
    run(wh, DAY)
    write_items(wh, NEXT, OLD[::-1], FIRST, space_version="e2")
    report = run(wh, NEXT)
    assert (report.action, report.why) == ("new book", "the item vectors come from another item space")
    write_items(wh, NEXT, OLD, FIRST)
    assert run(wh, NEXT).action == "kept"
    assert wh.partition("codebook", NEXT).info["book"] == wh.partition("codebook", DAY).info["book"]
    assert "another form" in run(wh, NEXT, CodebookConfig(layers=2, size=32, iterations=5)).why


def test_the_champion_keeps_its_form_of_book(wh: Warehouse) -> None:
    run(wh, DAY)
    write_items(wh, NEXT, OLD, FIRST)
    other = CodebookConfig(layers=2, size=32, iterations=5)
    with wh.write_partition("model_choice", NEXT) as part:
        (part.local / "choice.json").write_text("{}")
        part.info |= {"chosen": "champion"}
    assert run(wh, NEXT, other).action == "kept"
    with_arrivals(wh, NEXT, NEW)
    assert run(wh, NEXT, other).action == "new generation"
    assert wh.partition("codebook", NEXT).info["config"] == wh.partition("codebook", DAY).info["config"]

    write_items(wh, NEXT, OLD, FIRST, space_version="e2")  # the day again with RETRAIN=always
    assert run(wh, NEXT, other).action == "new book"
    assert wh.partition("codebook", NEXT).info["config"]["layers"] == 2 == book_of(wh, NEXT).config.layers


def test_bad_input_is_named_and_leaves_everything_as_it_was(wh: Warehouse) -> None:
    write_items(wh, DAY, OLD[:20], FIRST[:20])
    with pytest.raises(WarehouseError, match=r"seen item_index \d+; allowed: below 20"):
        run(wh, DAY)
    write_items(wh, DAY, OLD[np.arange(900) % 20], FIRST)
    with pytest.raises(InputError, match="20 distinct ones of 900, but 32 entries"):
        run(wh, DAY)
    write_items(wh, DAY, np.where(np.arange(900)[:, None] == 40, 0, OLD), FIRST)
    with pytest.raises(InputError, match="of length 0"):
        run(wh, DAY)
    write_items(wh, DAY, np.where(np.arange(900)[:, None] == 40, np.nan, OLD), FIRST)
    with pytest.raises(InputError, match="of length nan"):
        run(wh, DAY)
    assert wh.partitions("codebook") == wh.partitions("codebook_drift") == []
    write_items(wh, DAY, OLD, FIRST)
    with wh.write_partition("catalog", DAY) as part:
        part.write_table(wh.read(wh.partition("catalog", DAY)).slice(0, 800))
    with pytest.raises(WarehouseError, match="has 900 rows and catalog/ds=2020-03-20 800"):
        run(wh, DAY)


def test_drift_plot_shows_every_day(wh: Warehouse) -> None:
    run(wh, DAY)
    with_arrivals(wh, NEXT, NEW)
    run(wh, NEXT)
    found = drift_by_day(wh, NEXT)
    assert list(found) == [DAY, NEXT] and "arrivals_cosine" not in found[DAY]
    figure = plots.drift(found)
    assert [text.get_text() for text in figure.axes[0].texts] == ["new book", "new generation"]
    plotted = [line.get_ydata() for line in figure.axes[0].lines if line.get_label() == "arrivals since the last fit"]
    assert np.isnan(plotted[0][0]) and plotted[0][1] == found[NEXT]["arrivals_cosine"]
    assert list(drift_by_day(wh, DAY)) == [DAY], "a rerun of a past day does not look ahead"


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
    assert stage.data.metrics["generations"] == 1
    assert {a.path for a in client.list_artifacts(stage.info.run_id)} == {"drift.png", "report.txt"}

    with pytest.raises(SystemExit) as ended:
        cli.run(main, ["--warehouse", wh.uri, "--ds", NEXT, "--profile", settings])
    assert ended.value.code == 2
    assert f"missing partition item_vectors/ds={NEXT}: newest there is ds={DAY}" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        cli.run(main, ["--warehouse", wh.uri, "--ds", DAY, "--profile", settings, "--recode", "never"])
    assert ended.value.code == 2 and "seen 'never'; allowed: auto, always" in capsys.readouterr().err
