"""The whole DAG as a team runs it: Spark standalone, PostgreSQL, MLflow behind a password, LocalExecutor."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse
from tests.integration.cluster import HELP, Cluster, postgres_binaries
from tests.integration.conftest import DAYS, PROFILE, Refreshed

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(postgres_binaries() is None and "CI" not in os.environ, reason=HELP),
]


@pytest.fixture(scope="module")
def cluster(repository: Path, refreshed: Refreshed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    found = Cluster(repository, tmp_path_factory.mktemp("cluster"))
    # The weights are those that the days before converted: half a gigabyte, the same on every machine.
    (Path(found.env["HYMIREC_STATE"]) / "models").symlink_to(refreshed.slice.state / "models")
    try:
        found.start()
        yield found
    finally:
        found.stop()


def test_a_day_on_the_cluster_is_the_day_of_one_machine(cluster: Cluster, refreshed: Refreshed, tmp_path: Path) -> None:
    day, warehouse = DAYS[0], tmp_path / "warehouse"
    for table in ("events", "items"):
        shutil.copytree(refreshed.slice.warehouse / table, warehouse / table)
    assert cluster.refresh(ds=day, warehouse=str(warehouse), profile=str(PROFILE)) == "success"
    here = Release.open(Warehouse(str(warehouse)), full=True)
    there = Release.open(Warehouse(str(refreshed.slice.warehouse)), refreshed.releases[day])
    assert here.manifest["rows"] == there.manifest["rows"]
    assert here.manifest["files"] == there.manifest["files"]


def test_both_workers_took_part(cluster: Cluster) -> None:
    applications = [{path.name for path in (cluster.state / name).glob("app-*")} for name in ("worker-1", "worker-2")]
    assert applications[0] == applications[1] and len(applications[0]) >= 5


def test_mlflow_lets_nobody_in_without_a_password(cluster: Cluster) -> None:
    page = "/api/2.0/mlflow/experiments/search?max_results=1"
    assert cluster.answer(page) == cluster.answer(page, host="mlflow:5000") == 401, "its name in compose and Kubernetes"
    assert cluster.answer(page, host="elsewhere.example") == 403
    assert cluster.answer("/health") == 200
