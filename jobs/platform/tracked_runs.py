"""What a job writes of itself into MLflow: into its own run, and into that of the refresh it belongs to."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Dataset

_BATCH = 100  # most parameters MLflow takes in one call
_MOST_CHARACTERS = 4500  # of a tag's value; MLflow takes 5,000
_DPI = 110  # of pictures

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


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value, default=str)
