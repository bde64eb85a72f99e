"""A day's model against the champion: real models, evaluations and releases of a small day."""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from mlflow import MlflowClient

from hymirec_model.codebook import ResidualCodebook
from hymirec_model.config import CodebookConfig, EvaluationConfig, IndexConfig, RecommenderTrainingConfig
from hymirec_model.histories import Histories
from hymirec_model.hymirec import HyMiRec
from hymirec_model.training import Items, train_recommender
from jobs import choose_model, publish, rollback
from jobs.build_index import build
from jobs.build_index import find_inputs as index_inputs
from jobs.encode_items import encode_items
from jobs.encode_items import find_inputs as codes_inputs
from jobs.evaluate import champion_lists, evaluate, set_task
from jobs.export_interests import export_interests
from jobs.platform import cli, model_choice, releases, tracking
from jobs.platform.champion import Champion
from jobs.platform.errors import WarehouseError
from jobs.platform.gate import read_evaluation
from jobs.platform.profile import GateConfig
from jobs.platform.releases import Release
from jobs.platform.spark import session
from jobs.platform.training import evaluation_cut, read_histories, version_of
from jobs.platform.user_histories import UserHistories
from jobs.platform.user_models import ModelParts
from jobs.platform.warehouse import Warehouse
from tests.hymirec_model import planted
from tests.small_day import DIM, info, newest_space_version, profile, write_encoder, write_items
from tests.small_model import DAY, NOW, recommender, table, write_histories

NEXT = "2020-03-21"
ITEMS, USERS, WEEK = 300, 120, 7 * 86_400
GATE = "{min_ratio_to_popularity: 0, min_code_usage: 0.5}"


def vectors(items: int) -> np.ndarray:
    """Item vectors in six groups; more items leave the first ones as they are."""
    more = planted.vectors(items - ITEMS, DIM, seed=1) if items > ITEMS else np.empty((0, DIM), np.float32)
    return np.vstack([planted.vectors(ITEMS, DIM), more])


def moving_on(users: int) -> pa.Table:
    """Histories of people who move on to the next group of items every week: what comes next has to be learnt."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(users):
        weeks, events = 4 + user % 7, 4  # 16 to 40 events
        group = (rng.integers(planted.GROUPS) + np.arange(weeks)) % planted.GROUPS
        items = planted.GROUPS * rng.integers(ITEMS // planted.GROUPS, size=(weeks, events)) + group[:, None]
        starts = NOW - WEEK * np.arange(weeks, 0, -1)
        stamps = np.sort(starts[:, None] + rng.integers(WEEK, size=(weeks, events)), axis=1)
        rows.append(
            {
                "user_id": f"user-{user:03d}",
                "item_indices": items.ravel().tolist(),
                "timestamps": stamps.ravel().tolist(),
                "n_events": items.size,
            }
        )
    return pa.Table.from_pylist(rows, table(1, ITEMS).schema)


@functools.cache
def trained() -> HyMiRec:
    """A model that learnt it, from the weeks before the held-out one."""
    book, model = small_book(), recommender()
    generations, codes = book.encode_best(vectors(ITEMS))
    log = Histories.from_arrow(moving_on(USERS)).before(NOW - WEEK)
    items = Items(
        vectors_Id=torch.from_numpy(vectors(ITEMS)),
        codes_IL=torch.from_numpy(codes.astype(np.uint8)),
        generation_I=torch.from_numpy(generations.astype(np.uint8)),
        counts_I=torch.from_numpy(np.bincount(log.items, minlength=ITEMS)),
    )
    config = RecommenderTrainingConfig(
        light_steps=150,
        steps=1,
        batch_users=32,
        window=4,
        negatives=256,
        learning_rate=1e-2,
        validation_users=20,
        recent=1.0,
    )
    train_recommender(
        model, book.to_module(), items, log, config, lambda *_: None, torch.device("cpu"), mask_seen=False
    )
    return model


@functools.cache
def small_book() -> ResidualCodebook:
    return ResidualCodebook(CodebookConfig(layers=4, size=16, iterations=5)).fit(vectors(ITEMS))


def put_model(wh: Warehouse, ds: str, model: HyMiRec) -> str:
    with wh.write_partition("recommender", ds) as part:
        model.save(part.local)
        part.info |= {"model_version": version_of(part.local), "space_version": newest_space_version(wh, ds)}
        part.info |= {"trained": ds, "cut": str(evaluation_cut(ds, EvaluationConfig().holdout_days).date())}
    return str(info(wh, "recommender", ds)["model_version"])


def shuffled(seed: int = 0) -> HyMiRec:
    """The trained model with the weights of each parameter in another order."""
    model, generator = copy.deepcopy(trained()), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            order = torch.randperm(parameter.numel(), generator=generator)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return model


def derive(wh: Warehouse, ds: str, holdout_days: int = EvaluationConfig().holdout_days) -> None:
    """What the DAG does between the item vectors and the choice, and again with the champion's model."""
    encode_items(session("tests"), wh, ds, codes_inputs(wh, ds), CodebookConfig(layers=4, size=16), GateConfig())
    parts = ModelParts.find(wh, ds)
    config = EvaluationConfig(bootstrap=200, holdout_days=holdout_days)
    evaluate(wh, ds, config, wh.partition("histories", ds), parts)


def write_day(wh: Warehouse, ds: str, new_items: int = 0) -> None:
    items = ITEMS + new_items
    write_items(wh, ds, vectors(items), ["2020-01-01"] * items, space_version=newest_space_version(wh, ds))
    write_histories(wh, moving_on(USERS), ds)
    derive(wh, ds)


def choose(wh: Warehouse, tmp_path: Path, ds: str) -> int:
    return _run(choose_model.main, wh, tmp_path, ds)


def release(wh: Warehouse, tmp_path: Path, ds: str) -> int:
    """The rest of the day."""
    parts = ModelParts.find(wh, ds)
    export_interests(session("tests"), wh, ds, UserHistories.find(wh, ds), parts)
    build(wh, ds, IndexConfig(queries=60, neighbours=20), *index_inputs(wh, ds))
    return _run(publish.main, wh, tmp_path, ds)


def _run(main: object, wh: Warehouse, tmp_path: Path, ds: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.run(main, ["--warehouse", wh.uri, "--ds", ds, "--profile", profile(tmp_path, gate=GATE)])  # type: ignore[arg-type]
    return int(ended.value.code or 0)


def choice(wh: Warehouse, ds: str) -> dict[str, object]:
    return wh.partition(model_choice.TABLE, ds).info


def alias(name: str) -> str:
    return str(MlflowClient().get_model_version_by_alias("hymirec", name).version)


@pytest.fixture
def wh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """A warehouse with a published first day, and an MLflow of its own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    wh = Warehouse(str(tmp_path / "warehouse"))
    write_encoder(wh, DAY)
    with wh.write_partition("codebook", DAY) as part:
        small_book().save(part.local)
        part.info |= {"book": "b1", "tables": ["t1"], "space_version": newest_space_version(wh, DAY)}
    put_model(wh, DAY, trained())
    write_day(wh, DAY)
    assert choose(wh, tmp_path, DAY) == 0 and choice(wh, DAY)["chosen"] == "challenger"
    assert release(wh, tmp_path, DAY) == 0
    return wh


def test_shuffled_weights_are_turned_away_and_the_champion_serves_todays_data(
    wh: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = info(wh, "recommender", DAY)["model_version"], put_model(wh, NEXT, shuffled())
    write_day(wh, NEXT, new_items=20)
    compared = read_evaluation(wh, wh.partition("evaluation", NEXT))["champion"]
    assert compared["same_model"] is False and compared["release"] == releases.current_id(wh)
    assert choose(wh, tmp_path, NEXT) == 0
    out = capsys.readouterr().out
    assert "gate: REFUSED" in out and "champion serves (the challenger was refused: " in out
    assert "recall@50 all users 0." in out.partition("champion serves")[2]
    assert choice(wh, NEXT)["chosen"] == "champion" and choice(wh, NEXT)["refused"]["versions"]["recommender"] == bad
    assert info(wh, "recommender", NEXT)["model_version"] == good
    assert model_choice.champion_serves(wh, NEXT) and not model_choice.champion_serves(wh, DAY)

    derive(wh, NEXT)  # the tasks of the DAG's group champion
    assert release(wh, tmp_path, NEXT) == 0
    published = Release.open(wh, full=True)
    assert published.ds == NEXT and published.manifest["versions"]["recommender"] == good
    assert published.manifest["rows"] == {"items": ITEMS + 20, "interests": USERS}
    assert published.manifest["model"]["chosen"] == "champion"
    assert (alias("champion"), alias("challenger")) == ("1", "2")
    tags = MlflowClient().get_model_version("hymirec", "2").tags
    assert tags["hymirec.gate"].startswith("refused: ") and "recall@50 all users 0." in tags["hymirec.gate"]
    assert json.loads(tags["hymirec.verdict"])["passed"] is False


def test_a_refusal_that_was_cut_short_is_completed_and_stands_when_run_again(wh: Warehouse, tmp_path: Path) -> None:
    good, bad = info(wh, "recommender", DAY)["model_version"], put_model(wh, NEXT, shuffled())
    write_day(wh, NEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_choice, "restore_parts", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            cli.run(choose_model.main, ["--warehouse", wh.uri, "--ds", NEXT, "--profile", profile(tmp_path, gate=GATE)])
    assert info(wh, "recommender", NEXT)["model_version"] == bad
    decided = choice(wh, NEXT)
    for _ in range(2):
        assert choose(wh, tmp_path, NEXT) == 0
        assert info(wh, "recommender", NEXT)["model_version"] == good
        assert choice(wh, NEXT) == decided
        derive(wh, NEXT)


def test_a_champion_is_compared_by_its_items_though_a_past_day_numbered_them_anew(wh: Warehouse) -> None:
    put_model(wh, NEXT, shuffled())
    write_day(wh, NEXT)
    config = EvaluationConfig()
    task = set_task(read_histories(wh, NEXT, USERS), evaluation_cut(NEXT, config.holdout_days), config)
    parts = ModelParts.find(wh, NEXT)
    champion = Champion.of(wh, NEXT, parts)
    items = wh.read(parts.vectors, ["item_id"])
    assert champion is not None
    lists = champion_lists(champion, task, items, config, torch.device("cpu"))

    order = np.random.default_rng(0).permutation(ITEMS)
    anew = np.argsort(order)  # number of each item from now on
    moved = replace(task, past=replace(task.past, items=anew[task.past.items]))
    again = champion_lists(champion, moved, items.take(order), config, torch.device("cpu"))
    for one, other in zip(lists, again, strict=True):
        assert np.array_equal(np.where(one >= 0, anew[one], -1), other)
    elsewhere = pa.table({"item_id": [f"other {n}" for n in range(ITEMS)]})
    with pytest.raises(WarehouseError, match="seen no item of today's catalogue"):
        champion_lists(champion, task, elsewhere, config, torch.device("cpu"))


def test_an_equal_challenger_passes_and_a_kept_model_is_not_compared(wh: Warehouse, tmp_path: Path) -> None:
    write_day(wh, NEXT)  # nothing was trained
    assert choose(wh, tmp_path, NEXT) == 0 and choice(wh, NEXT)["chosen"] == "same model"
    assert read_evaluation(wh, wh.partition("evaluation", NEXT))["champion"]["cohorts"] == []

    model = copy.deepcopy(trained())
    with torch.no_grad():
        model.light.write.bias.add_(1e-6)
    version = put_model(wh, NEXT, model)
    derive(wh, NEXT)
    evaluation = read_evaluation(wh, wh.partition("evaluation", NEXT))
    rows = {row["name"]: row for row in evaluation["rows"]}
    assert np.isclose(rows["HyMiRec"]["recall@50"]["mean"], rows["champion"]["recall@50"]["mean"], atol=2e-3)
    cohorts = {(row["cohort"], row["metric"]): row for row in evaluation["champion"]["cohorts"]}
    assert cohorts["all users", "recall@50"]["users"] == evaluation["users"]
    assert 0 < cohorts["sparse users", "recall@50"]["users"] < evaluation["users"]
    assert ("new items", "recall@200") in cohorts
    assert choose(wh, tmp_path, NEXT) == 0 and choice(wh, NEXT)["chosen"] == "challenger"
    assert release(wh, tmp_path, NEXT) == 0
    assert Release.open(wh).manifest["versions"]["recommender"] == version
    assert (alias("champion"), alias("previous")) == ("2", "1")


def test_without_a_champion_a_refused_model_stops_the_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wh: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluation = wh.partition("evaluation", DAY)
    about = read_evaluation(wh, evaluation)
    about["pairwise_interest_cosine"] = 0.999
    with wh.write_partition("evaluation", DAY) as part:
        (part.local / "evaluation.json").write_text(json.dumps(about))
        part.info |= evaluation.info
    assert about["champion"] is None
    assert choose(wh, tmp_path, DAY) == 2
    error = capsys.readouterr().err
    assert "pairwise interest cosine 0.9990 is not at most 0.9950" in error
    assert "there is no champion to serve instead; nothing published" in error
    client = tracking.client_()
    runs = client.search_runs([tracking.find_experiment(client)], "tags.`hymirec.gate` = 'refused'")
    assert [run.info.run_name for run in runs] == [f"refresh {DAY}"], "the run of the refresh tells it"


def test_a_champion_that_has_seen_the_held_out_days_is_not_compared(wh: Warehouse) -> None:
    put_model(wh, NEXT, shuffled())
    write_day(wh, NEXT)
    compared = read_evaluation(wh, wh.partition("evaluation", NEXT))["champion"]
    assert compared["trained_on_held_out"] is False and compared["cohorts"]
    derive(wh, NEXT, EvaluationConfig().holdout_days + 2)
    evaluation = read_evaluation(wh, wh.partition("evaluation", NEXT))
    assert evaluation["champion"]["trained_on_held_out"] is True and evaluation["champion"]["cohorts"] == []
    assert "champion" not in {row["name"] for row in evaluation["rows"]}


def test_a_model_that_was_rolled_back_does_not_pass_again(wh: Warehouse, tmp_path: Path) -> None:
    first = Release.open(wh)
    model = copy.deepcopy(trained())
    with torch.no_grad():
        model.light.write.bias.add_(1e-6)
    put_model(wh, NEXT, model)
    write_day(wh, NEXT)
    assert choose(wh, tmp_path, NEXT) == 0 and release(wh, tmp_path, NEXT) == 0
    second = Release.open(wh)
    rollback.roll_back(first, second.id, "ada", "clicks fell")
    assert put_model(wh, NEXT, model) == second.manifest["versions"]["recommender"], "it is trained again"
    assert choose(wh, tmp_path, NEXT) == 0
    assert choice(wh, NEXT)["chosen"] == "champion"
    assert "rolled back on" in str(choice(wh, NEXT)["why"]) and "by ada: clicks fell" in str(choice(wh, NEXT)["why"])

    derive(wh, NEXT)
    rollback.roll_back(second, first.id, "ada", "by mistake")  # and so the refusal stands no more
    derive(wh, NEXT)
    assert choose(wh, tmp_path, NEXT) == 0 and choice(wh, NEXT)["chosen"] == "challenger"
