"""One parent run a refresh, one nested run a stage, in a real SQLite store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hymirec_model.config import IndexConfig
from jobs.platform import tracking
from jobs.platform.errors import JobError, TrackingError

REFRESH = "manual__2024-02-29T00:00:00+00:00"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store that lasts for the module: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(autouse=True)
def uri(store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    return store


def test_stages_share_a_parent(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "a.txt").write_text("a")
    with tracking.stage("first", ds="2024-02-29", refresh_id=REFRESH) as first:
        first.params({"index": IndexConfig(types=("flat",)), "note": "x", "none": None})
        first.params({f"p{i}": i for i in range(150)})
        first.metrics({"loss": 3.0, "broken": float("nan")}, step=1)
        first.metrics({"loss": 2.0}, step=2)
        first.artifact(tmp_path / "bundle", "bundle")
        first.artifact(tmp_path / "bundle" / "a.txt")
        first.text("hello", "notes/hello.txt")
        first.tags({"colour": "blue"})
    with tracking.stage("second", ds="2024-02-29", refresh_id=REFRESH) as second:
        pass
    with tracking.stage("other", ds="2024-03-01", refresh_id="other") as other:
        pass
    assert first.refresh.run_id == second.refresh.run_id != other.refresh.run_id

    client = tracking.client_()
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["index.types"] == '["flat"]'
    assert run.data.params["index.target_recall"] == "0.99"
    assert (run.data.params["note"], run.data.params["none"], run.data.params["p149"]) == ("x", "null", "149")
    assert [(m.step, m.value) for m in client.get_metric_history(first.run_id, "loss")] == [
        (1, 3.0),
        (2, 2.0),
    ]
    assert "broken" not in run.data.metrics
    assert run.data.metrics["seconds"] > 0
    assert run.data.tags["mlflow.parentRunId"] == first.refresh.run_id
    assert run.data.tags["colour"] == "blue"
    names = {file.path for file in client.list_artifacts(first.run_id)}
    assert names == {"bundle", "notes", "a.txt"}
    parent = client.get_run(first.refresh.run_id)
    assert parent.info.run_name == "refresh 2024-02-29"
    assert parent.info.status == "RUNNING"
    experiment = client.get_experiment_by_name("hymirec")
    assert experiment is not None
    assert experiment.artifact_location.startswith("file:///")

    tracking.end_refresh(REFRESH)
    assert client.get_run(first.refresh.run_id).info.status == "FINISHED"
    tracking.end_refresh("there is no such refresh")


def test_a_failed_stage_fails_the_refresh_and_a_retry_goes_on() -> None:
    with (
        pytest.raises(ValueError, match="bad"),
        tracking.stage("first", ds="2024-02-29", refresh_id="retried") as failed,
    ):
        raise ValueError("bad")
    client = tracking.client_()
    assert client.get_run(failed.run_id).info.status == "FAILED"
    assert client.get_run(failed.refresh.run_id).info.status == "FAILED"
    with tracking.stage("first", ds="2024-02-29", refresh_id="retried") as again:
        assert client.get_run(failed.refresh.run_id).info.status == "RUNNING"
    assert again.refresh.run_id == failed.refresh.run_id
    assert again.run_id != failed.run_id


def test_a_stage_ended_by_sigterm_is_killed(repository: Path) -> None:
    """A real job, ended as Airflow ends one."""
    script = (
        "import time\n"
        "from jobs.platform import cli, tracking\n"
        "def main() -> None:\n"
        "    with tracking.stage('first', ds='2024-02-29', refresh_id='t') as run:\n"
        "        print(run.run_id, flush=True)\n"
        "        time.sleep(60)\n"
        "cli.run(main)\n"
    )
    job = subprocess.Popen([sys.executable, "-c", script], cwd=repository, stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    run_id = job.stdout.readline().strip()
    job.terminate()
    job.terminate()  # the kernel's signal for a dead parent may follow Airflow's
    assert job.wait(30) == 143
    job.stdout.close()
    assert tracking.client_().get_run(run_id).info.status == "KILLED"


def test_an_interrupted_stage_is_killed() -> None:
    with pytest.raises(KeyboardInterrupt), tracking.stage("first", ds="2024-02-29", refresh_id="k") as run:
        raise KeyboardInterrupt
    assert tracking.client_().get_run(run.run_id).info.status == "KILLED"


def test_a_dead_server_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with (
        pytest.raises(TrackingError, match=r"MLflow at http://127.0.0.1:9: seen .*a server that answers; .*`make up`"),
        tracking.stage("first", ds="2024-02-29", refresh_id="x"),
    ):
        pass


def test_a_refresh_id_that_would_break_the_query() -> None:
    with (
        pytest.raises(JobError, match="refresh id: seen"),
        tracking.stage("first", ds="2024-02-29", refresh_id="it's"),
    ):
        pass
