from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.models import Model

from hymirec_model.codebook import ResidualCodebook
from hymirec_model.config import IndexConfig
from jobs.build_index import build
from jobs.build_index import find_inputs as index_inputs
from jobs.platform import columns, releases, switches
from jobs.platform.deletions import add_deletions
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse
from tests.published_days import DAY, NEXT, VECTORS, alias, derive, publish, write_day
from tests.small_day import (
    info,
    newest_space_version,
    write_evaluation,
    write_items,
    write_model,
    write_models,
)


@pytest.fixture
def wh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """A day ready to publish, and an MLflow of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    wh = Warehouse(str(tmp_path / "warehouse"))
    write_models(wh, DAY)
    write_day(wh, DAY)
    return wh


def test_published_release_holds_everything_and_agrees_with_itself(wh: Warehouse, tmp_path: Path) -> None:
    assert publish(wh, tmp_path) == 0
    release = Release.open(wh, full=True)
    assert {name.split("/")[0] for name in release.manifest["files"]} == {
        "encoder", "item_space", "recommender", "codebook", "items", "interests", "index", "evaluation"
    }  # fmt: skip
    assert release.manifest["rows"] == {"items": 600, "interests": 40}
    assert release.manifest["data"] == {
        "from": "2020-03-01",
        "until": DAY,
        "evaluation_cut": f"{DAY}T00:00:00+00:00",
    }
    assert release.manifest["shapes"] == {"dim": 16, "interests": 3, "code_bytes": 4, "generations": 1}
    assert release.manifest["retrieval"] == {"merge": "lse", "scale": 12.0, "buckets": 2}
    assert release.manifest["profile"]["codebook"]["size"] == 32
    items = release.table("items")
    assert items["item_index"].to_pylist() == list(range(600)) and items["title"][7].as_py() == "title 7"
    vectors = np.load(release.local() / "items" / "vectors.npy", mmap_mode="r")
    assert vectors.dtype == np.float16 and vectors.flags.c_contiguous
    assert np.array_equal(vectors, VECTORS.astype(np.float16))
    book = ResidualCodebook.load(release.local() / "codebook")
    decoded = book.decode(
        columns.matrix(items["codes"].combine_chunks(), "items", "codes"), items["generation"].to_numpy()
    )
    assert (decoded * vectors).sum(1).mean() > 0.9
    assert release.table("interests").num_rows == 40
    assert not [name for name in release.manifest["files"] if name.endswith((".pkl", ".pickle", ".pt"))]
    client = MlflowClient()
    (experiment,) = client.search_experiments(filter_string="name = 'hymirec'")
    runs = client.search_runs([experiment.experiment_id], f"tags.`hymirec.release` = '{release.id}'")
    assert {run.info.run_name for run in runs} == {f"refresh {DAY}", "publish"}
    for run in runs:
        shown = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert shown >= {"interest_map.png", "trend.png"}


def test_rerun_gives_the_same_id_and_registers_nothing(wh: Warehouse, tmp_path: Path) -> None:
    assert publish(wh, tmp_path) == 0
    first = Release.open(wh)
    manifest = (first.local() / "manifest.json").read_bytes()
    derive(wh, DAY)
    assert publish(wh, tmp_path) == 0
    again = Release.open(wh)
    assert again.id == first.id and (again.local() / "manifest.json").read_bytes() == manifest
    assert len(MlflowClient().search_model_versions("name = 'hymirec'")) == 1


def test_a_release_is_the_same_whatever_mlflow_tracks_it(
    wh: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert publish(wh, tmp_path) == 0
    first = releases.current_id(wh)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    client = MlflowClient()
    client.create_registered_model("hymirec")
    client.create_model_version("hymirec", str(tmp_path))  # so that the same model is version 2 here
    assert publish(wh, tmp_path) == 0
    assert releases.current_id(wh) == first and alias("champion") == "2"


def test_model_is_a_version_and_champion_moves_with_it(wh: Warehouse, tmp_path: Path) -> None:
    assert publish(wh, tmp_path) == 0
    assert (alias("champion"), alias("previous")) == ("1", None)
    release = Release.open(wh)
    version = MlflowClient().get_model_version("hymirec", "1")
    assert version.tags["hymirec.release"] == release.id
    assert release.manifest["mlflow"] == {
        "model": "hymirec",
        "fingerprint": version.tags["hymirec.fingerprint"],
    }
    got = Path(download_artifacts("models:/hymirec@champion"))
    assert Model.load(str(got)).signature.inputs.input_names() == ["events"]
    for name in release.files("encoder") + release.files("recommender") + release.files("codebook"):
        assert (got / name).read_bytes() == (release.local() / name).read_bytes()

    write_day(wh, NEXT)  # a day without retraining
    assert publish(wh, tmp_path, NEXT) == 0
    second = Release.open(wh)
    assert second.ds == NEXT and second.parent == release.id
    assert second.manifest["mlflow"] == release.manifest["mlflow"]
    assert (alias("champion"), alias("previous")) == ("1", None)

    write_models(wh, "2020-03-22", value=2.0)
    write_day(wh, "2020-03-22")
    assert publish(wh, tmp_path, "2020-03-22") == 0
    assert (alias("champion"), alias("previous")) == ("2", "1")
    assert publish(wh, tmp_path, "2020-03-22") == 0
    assert (alias("champion"), alias("previous")) == ("2", "1")


def test_a_publish_that_was_cut_short_is_completed_by_a_second_publish(wh: Warehouse, tmp_path: Path) -> None:
    assert publish(wh, tmp_path) == 0
    first = releases.current_id(wh)
    write_models(wh, NEXT, value=2.0)
    write_day(wh, NEXT)
    for step in ("columns.os.posix_fallocate", "registry.promote", "switches.record", "releases.switch"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"jobs.platform.{step}", lambda *_, **__: (_ for _ in ()).throw(OSError("killed")))
            with pytest.raises(OSError, match="killed"):
                publish(wh, tmp_path, NEXT)
        assert releases.current_id(wh) == first
    assert publish(wh, tmp_path, NEXT) == 0
    assert (alias("champion"), alias("previous")) == ("2", "1")
    (_, entry) = switches.history(wh)
    assert (entry["from"]["release"], entry["to"]["release"]) == (first, releases.current_id(wh))
    assert len(MlflowClient().search_model_versions("name = 'hymirec'")) == 2


@pytest.mark.parametrize("policy", ["never", "dry-run"])
def test_promote_decides_what_becomes_of_a_release_that_passes(
    policy: str, wh: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(wh, tmp_path) == 0
    before = releases.current_id(wh)
    write_models(wh, NEXT, value=3.0)
    write_day(wh, NEXT)
    assert publish(wh, tmp_path, NEXT, promote=policy) == 0
    assert "gate: passed" in capsys.readouterr().out
    assert releases.current_id(wh) == before and alias("champion") == "1"
    written = [name for name in releases.all_ids(wh) if name != before]
    if policy == "dry-run":
        assert written == [] and len(MlflowClient().search_model_versions("name = 'hymirec'")) == 1
    else:
        named = Release.open(wh, written[0], full=True).manifest["mlflow"]["fingerprint"]
        assert MlflowClient().get_model_version("hymirec", "2").tags["hymirec.fingerprint"] == named
    assert publish(wh, tmp_path, NEXT) == 0, "the same day is published when promote is auto again"
    assert releases.current_id(wh) != before and alias("champion") == "2"


def test_old_releases_go_but_for_those_that_an_alias_names(wh: Warehouse, tmp_path: Path) -> None:
    assert publish(wh, tmp_path) == 0
    first = releases.current_id(wh)
    write_models(wh, NEXT, value=2.0)  # the model of the first release becomes `previous`
    for day in range(21, 26):
        write_day(wh, f"2020-03-{day}")
        assert publish(wh, tmp_path, f"2020-03-{day}", keep_releases="2") == 0
    assert [name[:10] for name in releases.all_ids(wh)] == [DAY, "2020-03-24", "2020-03-25"]
    assert first is not None and Release.open(wh, first, full=True).ds == DAY
    assert alias("previous") == "1"
    assert [entry["to"]["release"][:10] for entry in switches.history(wh)] == [
        f"2020-03-{day}" for day in range(20, 26)
    ]


@pytest.mark.parametrize("reason", ["recall", "index", "users"])
def test_gate_refuses_and_leaves_everything_as_it_was(
    reason: str, wh: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(wh, tmp_path) == 0
    before = releases.current_id(wh)
    write_models(wh, NEXT, value=3.0)
    write_day(wh, NEXT, users=36 if reason == "users" else 40, model=0.19 if reason == "recall" else 0.3)
    if reason == "index":
        build(
            wh,
            NEXT,
            IndexConfig(queries=60, neighbours=60, types=("ivf",), target_recall=0.1),
            *index_inputs(wh, NEXT),
        )
    capsys.readouterr()
    assert publish(wh, tmp_path, NEXT) == 2
    shown = capsys.readouterr()
    assert "gate: REFUSED" in shown.out and "NO" in shown.out
    expected = {
        "recall": "recall@50 0.1900 is not at least 0.2000, 1 times that of popularity",
        "index": "merged index recall 0.",
        "users": f"users 36.0000 is not at least 38.0000, 0.95 times the 40 of release {before}",
    }[reason]
    assert expected in shown.err and f"CURRENT stays {before}" in shown.err
    assert releases.current_id(wh) == before
    assert releases.all_ids(wh) == [before]
    assert alias("champion") == "1"
    refused = MlflowClient().get_model_version("hymirec", "2").tags
    assert refused["hymirec.gate"].startswith(f"refused: {expected}")
    assert json.loads(refused["hymirec.verdict"])["passed"] is False
    said, served = (MlflowClient().get_model_version("hymirec", number).description or "" for number in ("2", "1"))
    assert said.startswith("No release came") and f"The gate refused: {expected}" in said
    assert f"Release `{before}`" in served and "recall@50: HyMiRec 0.300" in served and "The gate passed." in served
    client = MlflowClient()
    experiment = client.get_experiment_by_name("hymirec")
    assert experiment is not None
    stages = client.search_runs([experiment.experiment_id], f"tags.`hymirec.ds` = '{NEXT}'")
    assert {stage.info.status for stage in stages} == {"FAILED"}
    html = (tmp_path / "warehouse" / "reports" / f"{NEXT}.html").read_text()
    assert "The gate refused." in html and f"nothing published, CURRENT stays {before}" in html
    (refresh,) = (stage for stage in stages if "mlflow.parentRunId" not in stage.data.tags)
    assert Path(download_artifacts(run_id=refresh.info.run_id, artifact_path="report.html")).read_text() == html
    assert refresh.data.tags["hymirec.gate"] == "refused" and "hymirec.release" not in refresh.data.tags
    assert {file.path for file in client.list_artifacts(refresh.info.run_id)} == {"report.html"}


def test_deletion_requests_do_not_keep_the_people_served(
    wh: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish(wh, tmp_path) == 0
    write_day(wh, NEXT, users=36)
    add_deletions(wh, ["user-036", "user-037", "somebody else"])
    assert publish(wh, tmp_path, NEXT) == 2, "two others are gone without having asked"
    seen = f"at least 36.1000, 0.95 times the 38 of release {releases.current_id(wh)} besides 2 who asked to be deleted"
    assert f"users 36.0000 is not {seen}" in capsys.readouterr().err
    add_deletions(wh, ["user-038", "user-039"])
    assert publish(wh, tmp_path, NEXT) == 0
    assert Release.open(wh).manifest["rows"]["interests"] == 36


def test_earlier_day_is_published_but_not_switched_to(
    wh: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_day(wh, NEXT)
    assert publish(wh, tmp_path, NEXT) == 0
    newest = releases.current_id(wh)
    assert publish(wh, tmp_path, DAY) == 0
    assert releases.current_id(wh) == newest
    assert "not CURRENT: a newer day is published already" in capsys.readouterr().out
    assert len(list((Path(wh.uri) / "releases").glob("2020-*"))) == 2


def retrain_recommender(wh: Warehouse) -> None:
    write_model(wh, "recommender", DAY, 2.0, "model_version", space_version=newest_space_version(wh, DAY))


def evaluate_another_model(wh: Warehouse) -> None:
    write_evaluation(wh, DAY, model_version="m2")


def train_another_encoder(wh: Warehouse) -> None:
    write_model(wh, "encoder", DAY, 2.0, "version")


def train_another_item_space(wh: Warehouse) -> None:
    write_model(wh, "item_space", DAY, 2.0, "version", encoder=info(wh, "encoder", DAY)["version"])


def change_items_after_the_index_was_built(wh: Warehouse) -> None:
    """Leave a stale index: it holds the former vectors of two items."""
    vectors = VECTORS.copy()
    vectors[:2] = vectors[2:4]
    write_items(wh, DAY, vectors, ["2020-03-01"] * 600, space_version=newest_space_version(wh, DAY))


def choose_another_model(wh: Warehouse) -> None:
    with wh.write_partition("model_choice", DAY) as part:
        (part.local / "choice.json").write_text("{}")
        versions = {"space": newest_space_version(wh, DAY), "codebook": "b1", "recommender": "m2"}
        part.info |= {"chosen": "challenger", "why": "", "versions": versions, "refused": None}


def compute_other_vectors(wh: Warehouse) -> None:
    write_items(wh, DAY, VECTORS, ["2020-03-01"] * 600, space_version="e2")


@pytest.mark.parametrize(
    ("change", "key", "named"),
    [
        (retrain_recommender, "model_version", ("recommender", "interests")),
        (evaluate_another_model, "model_version", ("recommender", "evaluation")),
        (train_another_encoder, "encoder", ("encoder", "item_space")),
        (train_another_item_space, "space_version", ("item_space", "item_vectors")),
        (compute_other_vectors, "space_version", ("item_vectors", "item_codes")),
        (change_items_after_the_index_was_built, "content", ("item_vectors", "index")),
        (choose_another_model, "recommender", ("model_choice", "evaluation")),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    wh: Warehouse,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Warehouse], None],
    key: str,
    named: tuple[str, ...],
) -> None:
    change(wh)
    assert publish(wh, tmp_path) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {key}: seen ") and "allowed: one and the same" in message
    assert all(f"{name}/ds={DAY} " in message for name in named)
    assert releases.current_id(wh) is None and not (Path(wh.uri) / "releases").exists()


def test_evaluation_without_the_model_is_refused(
    wh: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with wh.write_partition("evaluation", DAY) as part:
        (part.local / "evaluation.json").write_text(json.dumps({"rows": [{"name": "popularity"}]}))
        part.info |= {name: wh.partition("model_choice", DAY).info[name] for name in ("versions",)}
        part.info["model_version"] = info(wh, "recommender", DAY)["model_version"]
    assert publish(wh, tmp_path) == 2
    assert "seen rows popularity; allowed: HyMiRec among them" in capsys.readouterr().err
    assert releases.current_id(wh) is None
