"""One environment and one Spark session for all tests; state goes to a folder that is removed afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from infra.local_env import environment

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_OPTIONS = (
    "DS",
    "WAREHOUSE",
    "PROFILE",
    "RETRAIN",
    "RECODE",
    "PROMOTE",
    "TO",
    "REASON",
    "PERSON",
    "A",
    "B",
)  # of make, which `make test` hands on
_STATE = pytest.StashKey[str]()

# The same examples in every run: a failure is one of the code, and comes back.
settings.register_profile("hymirec", derandomize=True, deadline=None)
settings.load_profile("hymirec")


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before any test module is imported."""
    state = tempfile.mkdtemp(prefix="hymirec-tests-")
    config.stash[_STATE] = state
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("AIRFLOW", "MLFLOW", "HYMIREC")) and key not in _OPTIONS
    }
    for key in os.environ.keys() - inherited.keys():
        del os.environ[key]
    os.environ.update(environment({**inherited, "HYMIREC_STATE": state}))
    os.environ["PYSPARK_SUBMIT_ARGS"] = "--master local[2] --conf spark.ui.enabled=false pyspark-shell"


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep what shares fixtures in one process: a file, and all of tests/integration.

    The days of tests/integration come last, or first where another process runs the fast tests meanwhile.
    """
    tests = Path(__file__).parent
    parallel = hasattr(config, "workerinput")
    groups = {item: item.path.relative_to(tests).parts for item in items}
    for item, parts in groups.items():
        item.add_marker(pytest.mark.xdist_group("integration" if parts[0] == "integration" else "/".join(parts)))
    items.sort(key=lambda item: (groups[item][0] == "integration") != parallel)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the tests' state."""
    shutil.rmtree(config.stash[_STATE], ignore_errors=True)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the repository's root."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """Return the one Spark session of the tests: local, two cores."""
    from jobs.platform.spark import session

    found = session("tests")
    yield found
    found.stop()
