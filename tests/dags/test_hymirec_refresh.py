"""The DAG: it loads quickly and without weight, its chain is the designed one, it treats exit codes right."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from copy import copy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pendulum
import pytest
from airflow.sdk.exceptions import ParamValidationError

CHAIN = [
    "resolve",
    "check_inputs",
    "update_histories",
    "train_encoder",
    "embed_catalog",
    "train_item_space",
    "fit_codebook",
    "encode_items",
    "train_recommender",
    "evaluate",
    "choose_model",
    "champion_serves",
    "champion.embed_catalog",
    "champion.train_item_space",
    "champion.fit_codebook",
    "champion.encode_items",
    "champion.evaluate",
    "export_interests",
    "build_index",
    "publish",
    "announce_release",
]
JOBS = [name for name in CHAIN if name not in ("resolve", "champion_serves", "announce_release")]
ON_SPARK = {"check_inputs", "update_histories", "embed_catalog", "encode_items", "export_interests"}
HEAVY = ["torch", "pyspark", "faiss", "mlflow", "transformers", "pandas", "numpy", "pyarrow"]


@pytest.fixture(scope="module")
def dag() -> Any:
    from dags.hymirec_refresh import dag

    return dag


def test_parses_in_a_second_without_weight(repository: Path) -> None:
    """What an Airflow process pays for the file, Airflow itself being there already."""
    script = f"""
import json, sys, time
import airflow.sdk
start = time.perf_counter()
import dags.hymirec_refresh
seconds = time.perf_counter() - start
print(json.dumps([seconds, [name for name in {HEAVY} if name in sys.modules]]))
"""
    runs = []
    for _ in range(2):  # the first may compile bytecode
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=True
        )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    assert runs[0][1] == []
    assert min(seconds for seconds, _ in runs) < 1


def test_dag_bag_loads_without_errors(repository: Path) -> None:
    script = """
import json
from airflow.dag_processing.dagbag import DagBag
bag = DagBag("dags")
print(json.dumps([sorted(bag.dags), bag.import_errors]))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [["hymirec_refresh", "hymirec_rollback"], {}]


def test_chain_is_in_the_designed_order(dag: Any) -> None:
    assert list(dag.task_dict) == CHAIN
    following = [dag.get_task(task).downstream_task_ids for task in CHAIN]
    expected: list[set[str]] = [*({task} for task in CHAIN[1:]), set()]
    expected[CHAIN.index("choose_model")] = {"champion_serves", "export_interests"}
    assert following == expected


def test_the_champions_tasks_run_after_a_refusal_only(dag: Any) -> None:
    assert dag.get_task("champion_serves").ignore_downstream_trigger_rules is False, "export_interests would be skipped"
    for name in CHAIN:
        rule = dag.get_task(name).trigger_rule
        assert rule == ("none_failed" if name == "export_interests" else "all_success"), name
        if name.startswith("champion."):
            assert not dag.get_task(name).overrides, "retrain: always must not train the refused model again"


def test_every_job_of_the_chain_exists(repository: Path) -> None:
    from jobs.platform.launcher import known_jobs

    assert {name.removeprefix("champion.") for name in JOBS} <= set(known_jobs())


def test_tasks_start_their_jobs_as_designed(dag: Any) -> None:
    from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator

    from dags.launch import JobOperator

    for name in JOBS:
        task, job = dag.get_task(name), name.removeprefix("champion.")
        assert isinstance(task, SparkSubmitOperator if job in ON_SPARK else JobOperator)
        assert task.job == job
        if job in ON_SPARK:
            assert task._conn_id == "spark_default"
            assert Path(task.application).is_file()


def test_tasks_are_bounded_and_retried(dag: Any) -> None:
    for task in dag.tasks:
        assert task.execution_timeout is not None and task.execution_timeout <= timedelta(days=1)
        assert task.retries == 2 and task.retry_exponential_backoff and task.max_retry_delay == timedelta(minutes=15)
    assert dag.max_active_runs == 1 and not dag.catchup


def test_no_day_is_too_early(dag: Any) -> None:
    """A run of a day before the start of a DAG has no tasks, and succeeds."""
    assert dag.start_date == pendulum.datetime(1970, 1, 1)


def test_is_documented(dag: Any) -> None:
    assert dag.doc_md and dag.description and dag.tags
    for name in ("warehouse", "profile", "ds", "retrain", "recode", "promote", "drift"):
        assert dag.params.get_param(name).description
    for name in CHAIN:
        assert name.startswith("champion.") or f"| {name} |" in dag.doc_md
        assert "**Does:** " in dag.get_task(name).doc_md and "**When it fails:** " in dag.get_task(name).doc_md, name


def test_somebody_is_told_of_each_failure(dag: Any) -> None:
    """By a notifier; and of a job, by the page of the day."""
    from dags.failures import LogNotifier, write_page

    for task in dag.tasks:
        notifier, *pages = task.on_failure_callback
        assert isinstance(notifier, LogNotifier), task.task_id
        assert [page.func for page in pages] == [write_page] * hasattr(task, "job"), task.task_id


def test_other_dags_can_follow(dag: Any) -> None:
    outlets = {
        name: [asset.name for asset in dag.get_task(name).outlets] for name in CHAIN if dag.get_task(name).outlets
    }
    assert outlets == {
        "check_inputs": ["hymirec_items"],
        "update_histories": ["hymirec_histories"],
        "export_interests": ["hymirec_interests"],
        "announce_release": ["hymirec_release"],
    }


def test_tasks_have_pools_and_this_machine_makes_them(dag: Any, repository: Path) -> None:
    pools: dict[str, set[str]] = {}
    for task in dag.tasks:
        pools.setdefault(task.pool, set()).add(task.task_id.removeprefix("champion."))
    assert pools["hymirec_spark"] == ON_SPARK
    assert pools["hymirec_training"] >= {"train_encoder", "train_item_space", "train_recommender", "evaluate"}
    assert pools["default_pool"] >= {"resolve", "champion_serves", "publish"}
    assert pools.keys() - {"default_pool"} == json.loads((repository / "infra" / "pools.json").read_text()).keys()


def test_an_airflow_that_names_no_pool_uses_the_one_it_has(repository: Path) -> None:
    """Tasks of a pool that is not there would wait for ever."""
    script = "from dags.hymirec_refresh import dag; print(sorted({task.pool for task in dag.tasks}))"
    env = {key: value for key, value in os.environ.items() if not key.endswith("_POOL")}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=repository,
        env={**env, "HYMIREC_TRAINING_POOL": "gpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "['default_pool', 'gpu']"


def test_form_offers_what_the_jobs_take(dag: Any) -> None:
    from jobs.platform.names import DRIFT, PROMOTE, RECODE, RETRAIN
    from jobs.platform.resolver import CONF_KEYS

    assert set(dag.params) == set(CONF_KEYS)
    assert dag.params.get_param("retrain").schema["enum"] == [None, *RETRAIN]
    assert dag.params.get_param("recode").schema["enum"] == [None, *RECODE]
    assert dag.params.get_param("promote").schema["enum"] == [None, *PROMOTE]
    assert dag.params.get_param("drift").schema["enum"] == [None, *DRIFT]
    assert dag.get_task("check_inputs").overrides == ("drift",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ds", "3.12.2017"),
        ("ds", "20171203"),
        ("ds", "2017-02-30"),
        ("profile", "demmo"),
        ("profile", ""),
        ("warehouse", " "),
        ("warehouse", "ftp://host/warehouse"),
        ("retrain", "yes"),
        ("recode", "never"),
        ("promote", "dry run"),
        ("drift", "ignore"),
    ],
)
def test_the_form_refuses(dag: Any, name: str, value: str) -> None:
    with pytest.raises(ParamValidationError, match=re.escape(repr(value))) as caught:
        dag.params.get_param(name).resolve(value)
    assert re.search("'allowed'|'enum'", str(caught.value)), "it has to say what is allowed"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ds", "2017-12-03"),
        ("ds", None),
        ("profile", "demo"),
        ("profile", "profiles/mine.yaml"),
        ("profile", "mine.yml"),
        ("warehouse", "var/my warehouse"),
        ("warehouse", "s3a://bucket/warehouse"),
        ("retrain", None),
        ("promote", "dry-run"),
    ],
)
def test_the_form_takes(dag: Any, name: str, value: str | None) -> None:
    assert copy(dag.params.get_param(name)).resolve(value) == value


@pytest.mark.parametrize("setting", ["@daily", "0 3 * * *"])
def test_scheduled_runs_cover_the_day_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str) -> None:
    """The scheduler's own reckoning, through the resolver: the run of the night after 3 December is about that day."""
    from airflow.timetables.base import TimeRestriction
    from airflow.timetables.interval import CronDataIntervalTimetable

    from dags import hymirec_refresh
    from jobs.platform.resolver import resolve_refresh

    monkeypatch.setenv("HYMIREC_SCHEDULE", setting)
    declared = hymirec_refresh.schedule()
    assert declared is not None
    timetable = CronDataIntervalTimetable(declared.expression, declared.timezone)
    earliest = pendulum.datetime(2017, 12, 3)
    run = timetable.next_dagrun_info(
        last_automated_data_interval=None, restriction=TimeRestriction(earliest, None, catchup=True)
    )
    assert run is not None and run.run_after.to_date_string() == "2017-12-04"
    params = {"warehouse": str(tmp_path), "profile": "demo"}
    found = resolve_refresh(params, conf={}, logical_date=run.logical_date, manual=False, refresh_id="r")
    assert found["ds"] == "2017-12-03"


def test_no_schedule_on_this_machine(dag: Any) -> None:
    assert dag.schedule is None
