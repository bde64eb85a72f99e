"""The rollback DAG: what its form takes reaches the job as options that the job has."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from dags.launch import options


@pytest.fixture(scope="module")
def dag() -> Any:
    from dags.hymirec_rollback import dag

    return dag


def test_is_documented_and_runs_one_at_a_time(dag: Any) -> None:
    assert dag.doc_md and dag.description and dag.max_active_runs == 1 and dag.schedule is None
    for name in ("warehouse", "reason", "to"):
        assert dag.params.get_param(name).description
    assert list(dag.task_dict) == ["resolve", "rollback", "announce_release"]
    assert dag.get_task("rollback").retries == 0, "a person is there and reads the error"


def test_a_reason_is_asked_for(dag: Any) -> None:
    with pytest.raises(Exception, match="reason"):
        dag.params.validate()


@pytest.mark.parametrize(("user", "who"), [("ada", "ada"), (None, "Airflow")])
def test_the_form_becomes_the_jobs_options(dag: Any, user: str | None, who: str) -> None:
    from jobs.platform.local import REPOSITORY
    from jobs.rollback import main

    resolved = dag.get_task("resolve").python_callable(
        params={"warehouse": "w", "reason": "clicks fell", "to": None},
        dag_run=SimpleNamespace(triggering_user_name=user),
        run_id="manual__1",
    )
    given = options(resolved, ())
    assert given == [
        "--warehouse",
        str(REPOSITORY / "w"),
        "--reason",
        "clicks fell",
        "--by",
        who,
        "--refresh-id",
        "manual__1",
    ]
    assert set(resolved) == set(inspect.signature(main).parameters)
