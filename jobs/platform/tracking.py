"""MLflow: one parent run a refresh, one nested run a stage.

Everything goes through ``MlflowClient``; MLflow is imported when a stage starts, so that ``--help`` stays
quick.
"""

from __future__ import annotations

import dataclasses
import getpass
import importlib
import json
import logging
import math
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jobs.platform.errors import JobError, TrackingError
from jobs.platform.local import git_commit, state_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, Run

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
_BATCH = 100  # most parameters MLflow takes in one call
_MOST_CHARACTERS = 4500  # of a tag's value; MLflow takes 5,000
_DPI = 110  # of pictures

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default waits minutes for a dead server
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

Status = Literal["FINISHED", "FAILED", "KILLED"]


def metric_name(text: str) -> str:
    """A metric's name in characters that MLflow takes."""
    return text.replace("@", "_at_").replace(" ", "_")


class TrackedRun:
    """A run that is being written.

    Attributes
    ----------
    run_id : str
        MLflow's id.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self.run_id = run_id

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; dataclasses and mappings are flattened to dotted names."""
        from mlflow.entities import Param

        flat = [Param(key, value) for key, value in _flatten(values)]
        for start in range(0, len(flat), _BATCH):
            self._client.log_batch(self.run_id, params=flat[start : start + _BATCH])

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics at ``step`` (default 0); values that are not finite are left out."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        finite = [Metric(k, float(v), now, step or 0) for k, v in values.items() if math.isfinite(v)]
        self._client.log_batch(self.run_id, metrics=finite)

    def artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Log a file, or all files of a folder, into the artefact folder ``folder``."""
        log = self._client.log_artifacts if Path(path).is_dir() else self._client.log_artifact
        log(self.run_id, str(path), folder)

    def text(self, text: str, name: str) -> None:
        """Log ``text`` as the artefact ``name``."""
        self._client.log_text(self.run_id, text, name)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags, cut to the length that MLflow takes."""
        for key, value in values.items():
            self._client.set_tag(self.run_id, key, value[:_MOST_CHARACTERS])

    def inputs(self, datasets: Sequence[Dataset], context: str) -> None:
        """Note data sets that the run read, and what for: "training", "evaluation", …"""
        from mlflow.entities import DatasetInput, InputTag

        tags = [InputTag("mlflow.data.context", context)]
        self._client.log_inputs(self.run_id, [DatasetInput(dataset, tags) for dataset in datasets])


class RefreshRun(TrackedRun):
    """The parent run of a refresh, to which every stage of it may add."""

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters once; the tag ``hymirec.changed_params`` names those that a later attempt has otherwise.

        MLflow never changes a parameter.
        """
        there = self._client.get_run(self.run_id).data.params
        given = dict(_flatten(values))
        super().params({name: value for name, value in given.items() if name not in there})
        changed = [f"{key} {there[key]} -> {value}" for key, value in given.items() if there.get(key, value) != value]
        if changed:
            self.tags({"hymirec.changed_params": ", ".join(changed)})

    def end(self, status: Status) -> None:
        """Close it."""
        self._client.set_terminated(self.run_id, status)


class StageRun(TrackedRun):
    """The nested run of a stage.

    Attributes
    ----------
    refresh : RefreshRun
        The run that it is nested in.
    """

    def __init__(self, client: MlflowClient, run_id: str, refresh_run_id: str) -> None:
        super().__init__(client, run_id)
        self.refresh = RefreshRun(client, refresh_run_id)

    def figure(self, figure: Figure, name: str) -> None:
        """Log a picture as the artefact ``name`` of this run, and of the refresh's, where people look first."""
        with tempfile.TemporaryDirectory(prefix="hymirec-") as folder:
            path = Path(folder) / name
            figure.savefig(path, dpi=_DPI)
            self.artifact(path)
            self.refresh.artifact(path)


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
    hint = "start it with `make up`, or unset MLFLOW_TRACKING_URI"
    return TrackingError(f"MLflow at {tracking_uri()}: {' '.join(str(error).split())[:200]}; {hint}")


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


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value, default=str)
