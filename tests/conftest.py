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
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

_OPTIONS = (
    "DS",
    "WAREHOUSE",
    "PROFILE",
    "RETRAIN",
    "RECODE",
    "PROMOTE",
    "DRIFT",
    "TO",
    "REASON",
    "PERSON",
    "A",
    "B",
)  # of make, which `make test` hands on
_DAYS = "tests/integration/"
_DISTURBED = "tests/faults/disturbed"
_ALONE = ("tests/integration/test_local_cluster.py", "tests/integration/test_backfill.py")
"""Files of minutes that share no day with others, so that another process can run them; the one that starts services
comes second, when those of the days are up."""
_SHARED = {"tests/faults/test_files.py": _DISTURBED, "tests/faults/test_processes.py": _DISTURBED}
"""Files that disturb the same day, which one process prepares for both."""
_LONG = (_DAYS, *_ALONE, "tests/faults/test_embedding.py", _DISTURBED, "tests/test_house.py")
"""What takes long: begun last, it would leave the other process idle at the end."""
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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put what takes minutes last, or first where several processes share the tests."""
    parallel = hasattr(config, "workerinput")

    def rank(item: pytest.Item) -> int:
        scope = _scope(item.nodeid)
        place = _LONG.index(scope) if scope in _LONG else len(_LONG)
        return place if parallel else -place

    items.sort(key=rank)


def _scope(nodeid: str) -> str:
    """What stays in one process: a file, or the files that share a day."""
    file = nodeid.partition("::")[0]
    days = file.startswith(_DAYS) and file not in _ALONE
    return _DAYS if days else _SHARED.get(file, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Keep what shares fixtures in one process."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _scope(nodeid)

    return ByFile(config, log)


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
