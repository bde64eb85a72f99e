from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from hymirec_model.config import EvaluationConfig
from hymirec_model.histories import Histories
from jobs.evaluate import evaluate, flat_metrics, main, set_task
from jobs.platform import cli, tracking
from jobs.platform.errors import JobError, WarehouseError
from jobs.platform.scorecard import as_text, render
from jobs.platform.user_models import ModelParts
from jobs.platform.warehouse import Warehouse
from tests.small_day import profile
from tests.small_model import DAY, table, write_day, write_histories

CONFIG = EvaluationConfig(bootstrap=50)
CUT = datetime.datetime(2020, 3, 14, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def wh(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    wh = Warehouse(str(tmp_path_factory.mktemp("evaluate")))
    write_day(wh)
    return wh


def run(wh: Warehouse, config: EvaluationConfig = CONFIG) -> dict[str, Any]:
    return evaluate(wh, DAY, config, wh.partition("histories", DAY), ModelParts.find(wh, DAY))


def row(evaluation: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in evaluation["rows"] if row["name"] == name)


def test_task_splits_at_the_cut_and_counts_distinct_items() -> None:
    cut = int(CUT.timestamp())
    histories = Histories(
        user_ids=np.array(["both", "only past", "only new", "all new"], object),
        offsets=np.array([0, 5, 6, 7, 9]),
        items=np.array([1, 2, 2, 3, 3, 1, 1, 4, 5]),
        timestamps=cut + np.array([-9, -1, 0, 5, 6, -1, 0, -1, 0]),
    )
    task = set_task(histories, CUT, CONFIG)
    assert task.past.user_ids.tolist() == ["both", "all new"]
    assert task.past.items.tolist() == [1, 2, 4]
    assert [part.tolist() for part in task.relevant] == [[0, 2, 3], [2, 3, 5]]
    assert [part.tolist() for part in task.new] == [[0, 1, 2], [3, 5]]
    assert task.everyone.timestamps.max() < cut
    assert len(set_task(histories, CUT, EvaluationConfig(max_users=1)).past) == 1


def test_with_seen_items_masked_nobody_is_asked_for_what_they_had() -> None:
    cut = int(CUT.timestamp())
    histories = Histories(
        user_ids=np.array(["new and old", "only old", "new"], object),
        offsets=np.array([0, 4, 6, 8]),
        items=np.array([1, 2, 2, 3, 5, 5, 4, 6]),
        timestamps=cut + np.array([-9, -1, 0, 5, -1, 0, -1, 0]),
    )
    task = set_task(histories, CUT, EvaluationConfig(mask_seen=True))
    assert task.past.user_ids.tolist() == ["new and old", "new"]
    assert [part.tolist() for part in task.relevant] == [part.tolist() for part in task.new] == [[0, 1, 2], [3, 6]]
    with pytest.raises(JobError, match=r"2020-03-14.* of items that they had not had,; allowed: 1 or more"):
        set_task(histories.of_users(np.array([1])), CUT, EvaluationConfig(mask_seen=True))


def test_evaluation_holds_what_readers_expect(wh: Warehouse) -> None:
    evaluation = run(wh)
    part = wh.partition("evaluation", DAY)
    assert json.loads((wh.local_copy(part) / "evaluation.json").read_text()) == evaluation
    assert evaluation["cut"] == "2020-03-14T00:00:00+00:00" and evaluation["holdout_days"] == 7
    names = [row["name"] for row in evaluation["rows"]]
    assert names == ["HyMiRec", "popularity", "co-occurrence", "own repeats"]
    for line in evaluation["rows"]:
        for metric in ("recall@50", "recall@200", "ndcg@10", "new items recall@200"):
            assert 0 <= line[metric]["low"] <= line[metric]["mean"] <= line[metric]["high"] <= 1
        assert 0 < line["coverage@50"] <= 1
    assert row(evaluation, "popularity")["coverage@50"] == pytest.approx(50 / 300)
    # people return to favourites in these data
    assert row(evaluation, "own repeats")["recall@50"]["low"] > row(evaluation, "popularity")["recall@50"]["high"]
    assert sum(group["users"] for group in evaluation["by_history"]) == evaluation["users"]
    assert sum(group["items"] for group in evaluation["by_popularity"]) == evaluation["items"]
    assert [lead["over"] for lead in evaluation["leads"]] == names[1:]
    text = as_text(render(evaluation))
    assert "Recall@50" in text and "own repeats" in text and "100+" not in text
    assert set(flat_metrics(evaluation)) >= {"HyMiRec/recall_at_50", "own_repeats/new_items_recall_at_200"}


def test_users_table_gives_the_means(wh: Warehouse) -> None:
    evaluation = run(wh)
    part = wh.partition("evaluation", DAY)
    users = pq.read_table(wh.local_copy(part) / "users.parquet").to_pandas()
    assert len(users) == evaluation["users"] == part.rows and users["user_id"].is_unique
    for line in evaluation["rows"]:
        for metric in ("recall@50", "ndcg@10", "new items recall@200"):
            assert users[f"{line['name']} {metric}"].mean() == pytest.approx(line[metric]["mean"])


def test_rerun_gives_the_same_bytes(wh: Warehouse) -> None:
    def content() -> dict[str, bytes]:
        part = wh.partition("evaluation", DAY)
        return {name: (wh.local_copy(part) / name).read_bytes() for name in part.files}

    run(wh)
    before = content()
    run(wh)
    assert content() == before


def test_what_comes_after_the_cut_changes_no_list(wh: Warehouse, tmp_path: Path) -> None:
    """Held-out events may change what is right, but never what is ranked."""
    from jobs import evaluate as job

    seen: list[dict[str, np.ndarray]] = []
    measure = job.Scorecard.measure

    def spy(lists: dict[str, np.ndarray], *rest: Any) -> Any:
        seen.append(lists)
        return measure(lists, *rest)

    other = Warehouse(str(tmp_path))
    write_day(other)
    rows = table(40, 300).to_pylist()
    for user in rows:
        late = np.array(user["timestamps"]) >= CUT.timestamp()
        user["item_indices"] = np.where(late, 299 - np.array(user["item_indices"]), user["item_indices"]).tolist()
    write_histories(other, table(40, 300).from_pylist(rows, table(1, 300).schema))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job.Scorecard, "measure", spy)
        run(wh)
        run(other)
    for name in seen[0]:
        assert np.array_equal(seen[0][name], seen[1][name]), name


def test_masking_leaves_seen_items_out(wh: Warehouse) -> None:
    evaluation = run(wh, EvaluationConfig(bootstrap=20, mask_seen=True))
    plain = run(wh, EvaluationConfig(bootstrap=20))
    for name in ("HyMiRec", "own repeats"):
        masked = row(evaluation, name)
        assert masked["recall@200"]["mean"] < row(plain, name)["recall@200"]["mean"]
        # New items are looked for in lists without the others, whatever the lists are judged by.
        assert masked["new items recall@200"] == row(plain, name)["new items recall@200"]


def test_nobody_to_evaluate_is_an_error(wh: Warehouse) -> None:
    histories = Histories.from_arrow(table(3, 300)).before(int(CUT.timestamp()))
    with pytest.raises(JobError, match="none with events both before 2020-03-14"):
        set_task(histories, CUT, CONFIG)


def test_model_of_another_encoder_is_an_error(tmp_path: Path) -> None:
    wh = Warehouse(str(tmp_path))
    write_day(wh, users=3)
    with wh.write_partition("recommender", DAY) as part:
        (part.local / "config.json").write_text("{}")
        part.info |= {"model_version": "m0", "space_version": "e0"}
    with pytest.raises(WarehouseError, match=r"seen space_version e0; allowed: e1.*run train_recommender"):
        ModelParts.find(wh, DAY)


def test_command_line(wh: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--warehouse",
        wh.uri,
        "--ds",
        DAY,
        "--profile",
        profile(tmp_path, evaluation="{bootstrap: 20}"),
        "--refresh-id",
        "evaluate-cli",
    ]
    with pytest.raises(SystemExit) as done:
        cli.run(main, options)
    assert done.value.code == 0
    last = capsys.readouterr().out.splitlines()[-1]
    figure = r"\d\.\d{3}"
    rankings = f"HyMiRec {figure}, popularity {figure}, co-occurrence {figure}, own repeats {figure}"
    assert re.fullmatch(rf"recall@50: {rankings} \(40 users\)", last)
    client = tracking.client_()
    runs = client.search_runs([tracking.find_experiment(client)], "tags.`hymirec.refresh_id` = 'evaluate-cli'")
    assert {run.info.run_name for run in runs} == {f"refresh {DAY}", "evaluate"}
    for run in runs:
        pictures = {file.path for file in client.list_artifacts(run.info.run_id) if file.path.endswith(".png")}
        assert pictures == {"recall_by_history.png", "coverage_by_popularity.png"}
        assert run.data.metrics.keys() & {"recall_at_50", "HyMiRec/recall_at_50"}
    stage = next(run for run in runs if run.info.run_name == "evaluate")
    assert {read.dataset.name for read in stage.inputs.dataset_inputs} == {"histories", "item_vectors"}
