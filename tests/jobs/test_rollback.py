"""Going back to an earlier release: everything that names the current one moves together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from jobs import rollback
from jobs.platform import cli, model_choice, releases, switches
from jobs.platform.deletions import add_deletions
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse
from tests.published_days import DAY, NEXT, alias, publish, write_day
from tests.small_day import info, item_vectors, write_models

REASON = "clicks fell by a tenth"


@pytest.fixture
def wh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """Two published days, the second with models of its own, and an MLflow of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    wh = Warehouse(str(tmp_path / "warehouse"))
    for value, day in enumerate((DAY, NEXT)):
        write_models(wh, day, value=1.0 + value)
        write_day(wh, day)
        assert publish(wh, tmp_path, day) == 0
    return wh


def run(wh: Warehouse, *options: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.run(rollback.main, ["--warehouse", wh.uri, *options])
    return int(ended.value.code or 0)


def models(wh: Warehouse) -> dict[str, str]:
    """Versions in force after the second day."""
    names = {"encoder": "version", "item_space": "version", "codebook": "book", "recommender": "model_version"}
    return {table: info(wh, table, "2020-03-31")[name] for table, name in names.items()}


def state(wh: Warehouse) -> tuple[object, ...]:
    return releases.current_id(wh), alias("champion"), alias("previous"), models(wh), switches.history(wh)


def test_current_aliases_and_models_go_back_together_and_on_record(
    wh: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    second = Release.open(wh)
    first = Release.open(wh, second.parent)
    assert (alias("champion"), alias("previous")) == ("2", "1")
    assert run(wh, "--reason", REASON, "--by", "ada") == 0
    assert f"CURRENT: {first.id} instead of {second.id}, by ada: {REASON}" in capsys.readouterr().out
    assert releases.current_id(wh) == first.id
    assert (alias("champion"), alias("previous")) == ("1", "2")
    versions = first.manifest["versions"]
    assert models(wh) == {table: versions[table] for table in ("encoder", "item_space", "codebook", "recommender")}
    last = switches.history(wh)[-1]
    assert (last["who"], last["why"], last["kind"]) == ("ada", REASON, "rollback")
    assert last["from"]["release"] == second.id and last["to"]["release"] == first.id and last["when"]
    assert Release.open(wh, second.id, full=True), "the release that was left is kept"
    runs = MlflowClient().search_runs(
        [MlflowClient().get_experiment_by_name("hymirec").experiment_id], "attributes.run_name = 'rollback'"
    )
    assert [(found.info.status, found.data.params["why"]) for found in runs] == [("FINISHED", REASON)]


def test_people_who_asked_to_be_deleted_are_told_of(wh: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    first = Release.open(wh, Release.open(wh).parent)
    somebody = str(first.table("interests", ["user_id"])["user_id"][0])
    add_deletions(wh, [somebody, "nobody"])
    assert run(wh, "--reason", REASON) == 0
    assert "\n1 people of this release have asked to be deleted since: leave them out" in capsys.readouterr().out


def test_a_rollback_by_mistake_is_taken_back(wh: Warehouse, tmp_path: Path) -> None:
    second = Release.open(wh)
    before = models(wh)
    run(wh, "--reason", REASON)
    assert models(wh)["recommender"] != before["recommender"]
    assert switches.rolled_back(wh, before["recommender"]) is not None
    assert run(wh, "--reason", "by mistake", "--to", second.id) == 0
    assert releases.current_id(wh) == second.id and models(wh) == before
    assert (alias("champion"), alias("previous")) == ("2", "1")
    assert switches.rolled_back(wh, before["recommender"]) is None
    assert publish(wh, tmp_path, NEXT) == 0 and releases.current_id(wh) == second.id


def test_a_generation_of_the_codebook_goes_back_too(wh: Warehouse, tmp_path: Path) -> None:
    before, day = Release.open(wh), "2020-03-22"
    write_day(wh, day, arrivals=item_vectors(300, 3, centres_seed=77))
    assert publish(wh, tmp_path, day) == 0
    left = Release.open(wh)
    assert left.manifest["shapes"]["generations"] == 2 and left.manifest["versions"] == before.manifest["versions"]
    assert run(wh, "--reason", REASON) == 0
    assert info(wh, "codebook", day) == before.manifest["model_parts"]["codebook"]["info"]
    assert model_choice.restore_parts(wh, before) == []

    write_day(wh, "2020-03-23")  # a day that needs no further generation
    assert publish(wh, tmp_path, "2020-03-23") == 0
    later = Release.open(wh).manifest
    assert later["shapes"]["generations"] == 1
    assert later["mlflow"] == before.manifest["mlflow"] != left.manifest["mlflow"], "the model that was left came back"
    assert run(wh, "--reason", "by mistake", "--to", left.id) == 0
    assert info(wh, "codebook", day) == left.manifest["model_parts"]["codebook"]["info"]


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("cut_at", ["promote", "switch", "record", "restore_parts"])
def test_a_rollback_cut_short_is_completed_by_a_second_one(
    cut_at: str, named: bool, wh: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = str(Release.open(wh).parent)
    options = ["--reason", REASON, *(["--to", first] if named else [])]
    place = {
        "promote": "jobs.platform.registry",
        "switch": "jobs.platform.releases",
        "record": "jobs.platform.switches",
        "restore_parts": "jobs.platform.model_choice",
    }[cut_at]
    with monkeypatch.context() as patch:
        patch.setattr(f"{place}.{cut_at}", lambda *_, **__: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            cli.run(rollback.main, ["--warehouse", wh.uri, *options])
    assert run(wh, *options) == 0
    assert releases.current_id(wh) == first and (alias("champion"), alias("previous")) == ("1", "2")
    assert models(wh)["recommender"] == Release.open(wh).manifest["versions"]["recommender"]
    assert model_choice.restore_parts(wh, Release.open(wh)) == []
    assert [entry["kind"] for entry in switches.history(wh)] == ["publish", "publish", "rollback"]


@pytest.mark.parametrize("damaged", ["index/index.faiss", "manifest.json"])
def test_a_damaged_release_is_left(damaged: str, wh: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    second = Release.open(wh)
    (second.local() / damaged).unlink()
    if damaged == "manifest.json":
        assert run(wh, "--reason", REASON) == 2
        assert f"allowed with --to: {second.parent}" in capsys.readouterr().err
    assert run(wh, "--reason", REASON, *(["--to", str(second.parent)] if damaged == "manifest.json" else [])) == 0
    assert releases.current_id(wh) == second.parent and Release.open(wh, full=True)


def _no_reason(wh: Warehouse) -> list[str]:
    return ["--reason", " "]


def _unknown(wh: Warehouse) -> list[str]:
    return ["--reason", REASON, "--to", "2020-03-01-01234567"]


def _outside(wh: Warehouse) -> list[str]:
    return ["--reason", REASON, "--to", "../2020-03-01-01234567"]


def _damaged(wh: Warehouse) -> list[str]:
    first = Release.open(wh, Release.open(wh).parent)
    path = first.local() / "index" / "index.faiss"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    return ["--reason", REASON]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (_no_reason, "reason: seen nothing; allowed: why"),
        (_unknown, "to: seen 2020-03-01-01234567, which is not there; allowed with --to: 2020-03-20-"),
        (_outside, "release id: seen '../2020-03-01-01234567'; allowed: a day and 8 hex digits"),
        (_damaged, "index/index.faiss has other content than the manifest says"),
    ],
)
def test_what_cannot_be_gone_back_to_changes_nothing(
    prepare: object, message: str, wh: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    options = prepare(wh)  # type: ignore[operator]
    before = state(wh)
    assert run(wh, *options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error
    assert state(wh) == before


def test_models_come_from_the_release_where_their_tables_are_gone(wh: Warehouse) -> None:
    before = Release.open(wh)
    shutil.rmtree(Path(wh.uri) / "encoder")
    assert run(wh, "--reason", REASON) == 0
    assert models(wh)["encoder"] == Release.open(wh).manifest["versions"]["encoder"]
    assert run(wh, "--reason", REASON, "--to", before.id) == 0
    found = wh.latest("encoder")
    assert found is not None and found.info["version"] == before.manifest["versions"]["encoder"]
    name = "model.safetensors"
    assert (wh.local_copy(found) / name).read_bytes() == (before.local() / "encoder" / name).read_bytes()


def test_the_first_release_has_nothing_before_it(wh: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(wh, "--reason", REASON) == 0
    assert run(wh, "--reason", REASON) == 2
    assert "has no release before it any more; allowed with --to: 2020-03-21-" in capsys.readouterr().err


def test_records_are_files_that_people_can_read(wh: Warehouse) -> None:
    run(wh, "--reason", REASON, "--by", "ada")
    files = sorted((Path(wh.uri) / "releases" / "switches").iterdir())
    assert len(files) == 3 and json.loads(files[-1].read_text())["why"] == REASON
