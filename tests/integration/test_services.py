"""`make up` and `make down`: services on loopback, healthy, and nothing left of them afterwards."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from tests.integration.conftest import PROFILE
from tests.integration.services import Services

pytestmark = pytest.mark.integration


def test_both_answer(services: Services) -> None:
    with urlopen(f"http://127.0.0.1:{services.airflow_port}/api/v2/monitor/health") as answer:
        health = json.load(answer)
    assert {health[part]["status"] for part in ("metadatabase", "scheduler", "dag_processor")} == {"healthy"}
    with urlopen(f"http://127.0.0.1:{services.mlflow_port}/health") as answer:
        assert answer.read() == b"OK"


def test_nothing_listens_outside_loopback(services: Services) -> None:
    record = json.loads((services.state / "run" / "services.json").read_text())
    sessions = {pid for pid, _ in record["services"].values()}
    assert len(sessions) == 4
    listening = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):  # it ended meanwhile
            if os.getsid(process.pid) in sessions:
                connections = process.net_connections("inet")
                listening += [each.laddr for each in connections if each.status == psutil.CONN_LISTEN]
    assert {address.port for address in listening} >= {services.airflow_port, services.mlflow_port}
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_the_pools_of_the_dag_are_there(services: Services) -> None:
    """Without them its tasks would wait for ever."""
    pools = {pool["name"] for pool in services.api.get("pools")["pools"]}
    assert pools == {"default_pool", "hymirec_spark", "hymirec_training"}


def test_the_password_is_made_and_private(services: Services) -> None:
    passwords = services.state / "airflow" / "simple_auth_manager_passwords.json.generated"
    assert len(json.loads(passwords.read_text())["admin"]) >= 12
    # Airflow prints the password to its log, too.
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (passwords.parent, services.state / "log")} == {0o700}
    assert passwords.name in services.make("status").stdout


def test_up_again_changes_nothing(services: Services) -> None:
    before = (services.state / "run" / "services.json").read_text()
    done = services.make("up")
    assert done.returncode == 0 and "running already" in done.stdout
    assert (services.state / "run" / "services.json").read_text() == before


def test_a_taken_port_is_named(services: Services, tmp_path: Path) -> None:
    done = services.make("up", HYMIREC_STATE=str(tmp_path))
    assert done.returncode == 2
    assert f"error: AIRFLOW_PORT: port {services.airflow_port}: Address already in use" in done.stderr
    assert f"make up AIRFLOW_PORT={services.airflow_port + 1}" in done.stderr


def test_a_trigger_is_checked_at_once(services: Services) -> None:
    done = services.make("trigger", PROFILE="demmo")
    assert done.returncode == 2
    assert done.stderr.startswith("error: profile: seen 'demmo'; allowed: ")


def test_down_leaves_nothing_behind(repository: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    services = Services(repository, tmp_path)  # of its own: other tests go on with theirs
    request.addfinalizer(lambda: services.make("down"))
    done = services.make("up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert services.processes()
    done = services.make("down")
    assert done.returncode == 0, done.stderr
    assert services.processes() == []
    assert not (services.state / "run" / "services.json").exists()
    assert services.make("status").returncode != 0
    assert "not running" in services.make("down").stdout
    done = services.make("trigger", PROFILE=str(PROFILE))
    assert done.returncode == 2 and done.stderr.startswith("error: Airflow is not running; start it with `make up`\n")
