"""MLflow: one parent run a refresh, one nested run a stage.

Everything goes through ``MlflowClient``; MLflow is imported when a stage starts, so that ``--help`` stays
quick.
"""

from __future__ import annotations

import getpass
import importlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.platform.errors import JobError, TrackingError
from jobs.platform.local import git_commit, state_folder
from jobs.platform.tracked_runs import StageRun, Status

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "hymirec"
REFRESH_TAG = "hymirec.refresh_id"
KIND_TAG = "hymirec.kind"
DS_TAG = "hymirec.ds"
SECONDS = "seconds/"
"""Put before a stage's name: the metric of the refresh's run that says how long it took last."""
_EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # else its page opens as one of chats and traces
    "mlflow.note.content": "A run `refresh DAY` a day, and nested in it one a task. Look at the pictures and "
    "`report.html` among its artifacts.",
}

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default waits minutes for a dead server
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@contextmanager
def stage(name: str, *, ds: str, refresh_id: str) -> Iterator[StageRun]:
    """Run a stage inside a nested MLflow run, and log its ``seconds``.

    Parameters
    ----------
    name : str
        Name of the stage's run.
    ds : str
        Day of the refresh.
    refresh_id : str
        Stages with the same id share a parent run, named ``refresh <ds>``.

    Yields
    ------
    StageRun

    Raises
    ------
    TrackingError
        If MLflow cannot be reached, at the start or at any later time.
    """
    with _named():
        client = client_()
        experiment_id = find_experiment(client)
        parent_id = _parent(client, experiment_id, ds, refresh_id)
        tags = {"mlflow.parentRunId": parent_id, REFRESH_TAG: refresh_id, KIND_TAG: "stage", DS_TAG: ds}
        tags |= _origin(f"jobs.{name}")
        run = client.create_run(experiment_id, run_name=name, tags=tags)
        stage_run = StageRun(client, run.info.run_id, parent_id)
        start = time.perf_counter()
        try:
            yield stage_run
        except BaseException as error:
            status: Status = "FAILED" if isinstance(error, Exception) else "KILLED"
            with suppress(Exception):  # MLflow may be what failed; the first error is the one to show
                client.set_terminated(run.info.run_id, status)
                stage_run.refresh.end(status)
            raise
        seconds = time.perf_counter() - start
        stage_run.metrics({"seconds": seconds})
        stage_run.refresh.metrics({f"{SECONDS}{name}": seconds})
        client.set_terminated(run.info.run_id, "FINISHED")


@contextmanager
def _named() -> Iterator[None]:
    """Turn the failures of MLflow's server or database, which a retry may not meet again, into TrackingError."""
    _import_mlflow()
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code not in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE"):
            raise
        raise _unreachable(error) from error


def _unreachable(error: Exception) -> TrackingError:
    uri = tracking_uri()
    allowed = "a database that can be read and written; look at the disk and at rights"
    if uri.startswith("http"):
        allowed = "a server that answers; bring it back (on this machine: `make up`)"
    return TrackingError(
        f"MLflow at {uri}: seen {' '.join(str(error).split())[:200]}; allowed: {allowed}, and run this again"
    )


def preload() -> None:
    """Start to import MLflow (seconds of work) in the background, while the job waits for something else."""
    threading.Thread(target=_import_mlflow, daemon=True).start()


def end_refresh(refresh_id: str, status: Status = "FINISHED") -> None:
    """Close the parent run of a refresh; without one there is nothing to do."""
    with _named():
        client = client_()
        parent = _find_parent(client, find_experiment(client), refresh_id)
        if parent is not None:
            client.set_terminated(parent.info.run_id, status)


def add_to_refresh(refresh_id: str, text: str, name: str) -> None:
    """Log ``text`` as the artefact ``name`` of a refresh's run; without one there is nothing to do."""
    with _named():
        client = client_()
        parent = _find_parent(client, find_experiment(client), refresh_id)
        if parent is not None:
            client.log_text(parent.info.run_id, text, name)


def client_() -> MlflowClient:
    """Return a client of MLFLOW_TRACKING_URI, by default a SQLite file in the state folder."""
    _import_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri())


def _import_mlflow() -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    importlib.import_module("mlflow")


def tracking_uri() -> str:
    """Return MLFLOW_TRACKING_URI, or the URI of the SQLite file in the state folder."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given:
        return given
    folder = state_folder() / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def find_experiment(client: MlflowClient) -> str:
    """Return the id of the experiment, created if need be."""
    from mlflow.exceptions import MlflowException

    try:
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            try:
                return client.create_experiment(EXPERIMENT, _artifact_location(), _EXPERIMENT_TAGS)
            except MlflowException:  # another process was quicker
                experiment = client.get_experiment_by_name(EXPERIMENT)
                if experiment is None:
                    raise
        if experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)
    except MlflowException as error:
        raise _unreachable(error) from error


def _artifact_location() -> str | None:
    """Folder beside a SQLite store, by its absolute path so that a server on the same store shows it too.

    A server decides for itself where its artefacts go.
    """
    uri = tracking_uri()
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///")).resolve().parent / "artifacts").as_uri()


def _find_parent(client: MlflowClient, experiment_id: str, refresh_id: str) -> Run | None:
    if not re.fullmatch(r"[\w.:+@ -]+", refresh_id):
        raise JobError(f"refresh id: seen {refresh_id!r}; allowed: letters, digits, spaces and . : + @ _ -")
    query = f"tags.`{REFRESH_TAG}` = '{refresh_id}' and tags.`{KIND_TAG}` = 'refresh'"
    runs = client.search_runs([experiment_id], query, max_results=1, order_by=["attributes.start_time ASC"])
    return runs[0] if runs else None


def _parent(client: MlflowClient, experiment_id: str, ds: str, refresh_id: str) -> str:
    found = _find_parent(client, experiment_id, refresh_id)
    if found is None:
        tags = {REFRESH_TAG: refresh_id, KIND_TAG: "refresh", DS_TAG: ds} | _origin("hymirec_refresh")
        found = client.create_run(experiment_id, run_name=f"refresh {ds}", tags=tags)
    elif found.info.status != "RUNNING":  # a retry goes on where a failed one ended
        client.update_run(found.info.run_id, status="RUNNING")
    return str(found.info.run_id)


def _origin(source: str) -> dict[str, str]:
    """Tags that MLflow's pages show as what ran, of which commit, and who ran it, as far as known."""
    tags = {"mlflow.source.name": source, "mlflow.source.type": "JOB", "mlflow.source.git.commit": git_commit()}
    with suppress(KeyError, OSError):  # in a container, an account may have no name
        tags["mlflow.user"] = getpass.getuser()
    return {key: value for key, value in tags.items() if value is not None}
