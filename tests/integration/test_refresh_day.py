"""The whole DAG on real purchases: a day by `make demo`, the next by the scheduler, and refused input."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import pytest
from mlflow import MlflowClient

from dags import failures
from infra.airflow_db import DAG
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse
from tests.integration.conftest import DAYS, PROFILE, Refreshed, Slice
from tests.integration.services import Services

pytestmark = pytest.mark.integration

TASKS = [
    "resolve",
    "check_inputs",
    "update_histories",
    "train_encoder",
    "embed_catalog",
    "train_item_space",
    "fit_codebook",
    "encode_items",
    "train_recommender",
    "evaluate",
    "choose_model",
    "champion_serves",
    "export_interests",
    "build_index",
    "publish",
    "announce_release",
]


def test_a_line_a_task(refreshed: Refreshed) -> None:
    done = [line.split()[1] for line in refreshed.output.splitlines() if line.startswith("  ✓")]
    assert done == TASKS


def test_the_demo_shows_at_its_end_what_came_out(refreshed: Refreshed) -> None:
    shown = refreshed.output.partition("✓ announce_release")[2]
    peers = ("HyMiRec", "popularity", "co-occurrence", "own repeats")
    for text in (f"release {refreshed.releases[DAYS[0]]}", *peers, "time by task", "nearest titles"):
        assert text in shown, text


def test_each_day_publishes_a_release_with_the_one_before_as_its_parent(refreshed: Refreshed) -> None:
    first, second = (refreshed.releases[ds] for ds in DAYS)
    assert first.startswith(DAYS[0]) and second.startswith(DAYS[1])
    warehouse = Warehouse(str(refreshed.slice.warehouse))
    release = Release.open(warehouse, second, full=True)
    assert release.parent == first
    assert Release.open(warehouse, first, full=True).parent is None
    assert {"encoder", "recommender", "codebook", "interests", "index", "evaluation"} <= {
        name.split("/")[0] for name in release.manifest["files"]
    }


def test_models_are_trained_when_due_only(refreshed: Refreshed) -> None:
    warehouse = Warehouse(str(refreshed.slice.warehouse))
    for table in ("encoder", "item_space", "recommender", "codebook"):
        assert warehouse.partitions(table) == [DAYS[0]]
    for table in ("histories", "item_vectors", "item_codes", "evaluation", "model_choice", "interests", "index"):
        assert warehouse.partitions(table) == list(DAYS)


def test_events_of_unknown_products_are_in_quarantine(refreshed: Refreshed) -> None:
    warehouse = Warehouse(str(refreshed.slice.warehouse))
    first, second = (warehouse.partition("quarantine", ds) for ds in DAYS)
    assert (first.rows, second.rows) == (3, 0)
    assert "events.item_id" in str(first.info)


def test_mlflow_shows_a_parent_run_a_refresh_and_a_nested_run_a_stage(refreshed: Refreshed, services: Services) -> None:
    """Asked over HTTP, as its pages are: the day of `make demo` too, which wrote without the server."""
    client = MlflowClient(tracking_uri=services.mlflow_url)
    experiment = client.get_experiment_by_name("hymirec")
    runs = client.search_runs([experiment.experiment_id], max_results=200)
    for ds in DAYS:
        (parent,) = [run for run in runs if run.info.run_name == f"refresh {ds}"]
        assert parent.info.status == "FINISHED"
        nested = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        assert {run.info.status for run in nested} == {"FINISHED"}
        assert {"check_inputs", "evaluate", "publish"} <= {run.info.run_name for run in nested}
        assert all("seconds" in run.data.metrics for run in nested)
    champion = client.get_model_version_by_alias("hymirec", "champion")
    assert champion.version


def test_a_release_starts_the_dag_of_the_docs(refreshed: Refreshed, services: Services) -> None:
    """The event of the day under the scheduler: recorded, and followed."""
    warehouse, release = str(refreshed.slice.warehouse), refreshed.releases[DAYS[1]]
    events = {event["name"]: event for event in services.api.get("assets/events")["asset_events"]}
    assert events.keys() == {"hymirec_items", "hymirec_histories", "hymirec_interests", "hymirec_release"}
    for event in events.values():
        assert (event["extra"]["warehouse"], event["extra"]["ds"]) == (warehouse, DAYS[1])
    assert events["hymirec_release"]["extra"]["release"] == release
    (run,) = services.ended("load_release", 1, "asset_triggered")
    assert run["state"] == "success"
    entry = f"dags/load_release/dagRuns/{quote(run['dag_run_id'])}/taskInstances/load/xcomEntries/return_value"
    assert services.api.get(entry)["value"] == f"{warehouse}/releases/{release}"


def test_errors_link_to_the_run_of_the_job(
    refreshed: Refreshed, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYMIREC_MLFLOW_URL", services.mlflow_url)
    (refresh,) = services.ended(DAG, 1, "manual")
    context: Any = {"ti": SimpleNamespace(log_url="http://log")}
    link = failures.links(context, "evaluate", refresh["dag_run_id"])["MLflow"]
    run = MlflowClient(tracking_uri=services.mlflow_url).get_run(link.rpartition("/")[2])
    assert link.startswith(f"{services.mlflow_url}/#/experiments/{run.info.experiment_id}/runs/")
    assert (run.info.run_name, run.data.tags["hymirec.ds"]) == ("evaluate", DAYS[1])


class TestRefused:
    """Nothing is published, and the message says what was seen and what is allowed."""

    def refused(self, tiny: Slice, ds: str, profile: Path = PROFILE, retrain: str = "") -> str:
        pointer = tiny.warehouse / "releases" / "CURRENT"
        before = pointer.read_text() if pointer.exists() else None
        done = tiny.make("run", ds, profile, retrain)
        assert done.returncode != 0
        assert "✓ publish" not in done.stdout
        assert (pointer.read_text() if pointer.exists() else None) == before
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        return line

    def test_a_misspelt_key_of_the_profile(self, tiny: Slice, tmp_path: Path) -> None:
        profile = tmp_path / "misspelt.yaml"
        profile.write_text(PROFILE.read_text().replace("histories:", "historys:"))
        line = self.refused(tiny, DAYS[0], profile)
        assert line.startswith("error: profile misspelt.yaml: unknown key 'historys'")
        assert "did you mean 'histories'?" in line and "allowed: " in line

    def test_a_day_without_events(self, tiny: Slice) -> None:
        line = self.refused(tiny, "2018-02-01")
        assert line.startswith("error: check_inputs: missing partition events/ds=2018-02-01: newest there is ds=")
        page = (tiny.warehouse / "reports" / "2018-02-01.html").read_text()
        assert "The task check_inputs failed." in page and "missing partition events/ds=2018-02-01" in page
        assert "CURRENT stays" in page and "import the day again" in page

    def test_a_value_of_the_conf(self, tiny: Slice) -> None:
        line = self.refused(tiny, DAYS[0], retrain="sometimes")
        assert line == "error: conf: retrain: seen 'sometimes'; allowed: auto, always, never"
