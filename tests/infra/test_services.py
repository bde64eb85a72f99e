"""What the services are started with; tests/integration starts them."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra import services
from infra.local_env import environment


@pytest.mark.parametrize(
    ("given", "served"),
    [
        ("", "{state}/mlflow/mlflow.db"),
        ("sqlite:////data/runs/mine.db", "/data/runs/mine.db"),
        ("http://tracking.example:5000", "{state}/mlflow/mlflow.db"),
    ],
)
def test_mlflow_serves_the_store_that_the_jobs_write_to(tmp_path: Path, given: str, served: str) -> None:
    env = environment({"HYMIREC_STATE": str(tmp_path), "MLFLOW_TRACKING_URI": given})
    command = services._commands(env, 5000)["mlflow"]
    store = served.format(state=tmp_path)
    assert command[command.index("--backend-store-uri") + 1] == f"sqlite:///{store}"
    assert command[command.index("--artifacts-destination") + 1] == str(Path(store).parent / "artifacts")
