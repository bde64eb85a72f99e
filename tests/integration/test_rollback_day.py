"""A model that is published, rolled back and trained again: the DAGs, from end to end.

The second day is run once more with new models and published; the rollback DAG leaves that release; a third run of the
day trains the same models, refuses them, and releases the day with the champion's.
"""

from __future__ import annotations

import getpass
import shutil
from dataclasses import dataclass, replace

import pytest
from mlflow import MlflowClient

from jobs.platform import switches
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse
from tests.integration.conftest import DAYS, Refreshed
from tests.integration.services import Services

pytestmark = pytest.mark.integration
REASON = "clicks fell by a tenth"


@dataclass(frozen=True)
class RolledBack:
    """Ids of releases in the order of the story, and what the last run printed."""

    warehouse: Warehouse
    kept: str
    retrained: str
    after_rollback: str
    last: str
    output: str


@pytest.fixture(scope="module")
def story(refreshed: Refreshed, services: Services) -> RolledBack:
    folder = refreshed.slice.folder / "rolled-back"
    shutil.copytree(refreshed.slice.warehouse, folder / "warehouse")
    tiny = replace(refreshed.slice, folder=folder)
    found = [tiny.current]
    done = tiny.make("run", DAYS[1], retrain="always")
    assert done.returncode == 0, done.stdout + done.stderr
    found.append(tiny.current)
    assert services.roll_back(str(tiny.warehouse), REASON) == "success", services.make("status").stdout
    found.append(tiny.current)
    done = tiny.make("run", DAYS[1], retrain="always")
    assert done.returncode == 0, done.stdout + done.stderr
    found.append(tiny.current)
    return RolledBack(Warehouse(str(tiny.warehouse)), *found, output=done.stdout)


def test_new_models_were_published_and_left_again(story: RolledBack, refreshed: Refreshed) -> None:
    kept, retrained = (Release.open(story.warehouse, name, full=True) for name in (story.kept, story.retrained))
    for part in ("encoder", "item_space", "codebook", "recommender"):
        assert kept.manifest["versions"][part] != retrained.manifest["versions"][part]
    assert story.after_rollback == refreshed.releases[DAYS[0]]
    last = [entry for entry in switches.history(story.warehouse) if entry["kind"] == "rollback"][-1]
    assert (last["who"], last["why"]) == (getpass.getuser(), REASON), "the record names who triggered the DAG"
    assert last["from"]["release"] == story.retrained and last["to"]["release"] == story.after_rollback


def test_other_dags_hear_of_the_rollback(story: RolledBack, services: Services) -> None:
    (event,) = (
        e for e in services.api.get("assets/events")["asset_events"] if e["source_dag_id"] == "hymirec_rollback"
    )
    assert (event["name"], event["extra"]["release"]) == ("hymirec_release", story.after_rollback)


def test_the_same_models_are_refused_and_the_champion_serves_the_day(story: RolledBack, services: Services) -> None:
    assert "champion serves (the challenger was refused: times rolled back" in story.output
    done = [line.split()[1] for line in story.output.splitlines() if line.startswith("  ✓")]
    start = done.index("champion_serves")
    assert done[start + 1 : start + 7] == [
        "champion.embed_catalog",
        "champion.train_item_space",
        "champion.fit_codebook",
        "champion.encode_items",
        "champion.evaluate",
        "export_interests",
    ]
    last = Release.open(story.warehouse, full=True)
    assert last.id == story.last and last.ds == DAYS[1] and last.manifest["model"]["chosen"] == "champion"
    client = MlflowClient(tracking_uri=services.mlflow_url)
    champion, challenger = (client.get_model_version_by_alias("hymirec", name) for name in ("champion", "challenger"))
    assert champion.tags["hymirec.fingerprint"] == last.manifest["mlflow"]["fingerprint"]
    assert challenger.tags["hymirec.gate"].startswith("refused: times rolled back")


def test_the_day_is_as_if_nothing_had_been_trained(story: RolledBack) -> None:
    kept, last = (Release.open(story.warehouse, name) for name in (story.kept, story.last))
    for part in ("encoder", "item_space", "codebook", "recommender", "items", "interests", "index"):
        names = kept.files(part)
        assert names and names == last.files(part)
        for name in names:
            assert (last.local() / name).read_bytes() == (kept.local() / name).read_bytes(), name
