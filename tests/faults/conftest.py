"""A day that is ready to be published, and jobs that run on it as processes of their own."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from benchmarks.fault_day import Day, write_log
from jobs.platform.warehouse import Warehouse
from tests.published_days import DAY, write_day
from tests.small_day import profile, write_models

SEED = random.randrange(10**6)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Return random moments; a failed test prints the seed that brings them back."""
    print(f"seed of the random moments: {SEED}")
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture(scope="session")
def ready(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Day:
    """Return a day with everything that publish reads. Tests disturb copies of it."""
    folder = tmp_path_factory.mktemp("faults")
    wh = Warehouse(str(folder / "ready"))
    write_models(wh, DAY)
    write_day(wh, DAY)
    return Day(Path(wh.uri), folder / "state", DAY, Path(profile(folder)))


@pytest.fixture(scope="session")
def published(ready: Day) -> tuple[Day, float]:
    """Return the day once it is published, and the seconds that took."""
    day = ready.copy(ready.warehouse.with_name("published"))
    return day, day.must("publish")


@pytest.fixture(scope="session")
def empty(ready: Day) -> Day:
    """Return a warehouse without anything, and a log to import into it."""
    write_log(ready.state / "log")
    return Day(ready.warehouse.with_name("empty"), ready.state)
