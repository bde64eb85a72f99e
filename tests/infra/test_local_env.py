"""The environment of local commands."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local_env import SettingError, environment


def test_all_state_lies_in_one_folder(tmp_path: Path) -> None:
    foreign = {
        "AIRFLOW_HOME": "/elsewhere",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://them:secret@db/airflow",
    }
    env = environment({"HYMIREC_STATE": str(tmp_path), "PATH": "/bin", **foreign})
    assert env["AIRFLOW_HOME"] == str(tmp_path / "airflow")
    assert env["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith(f"sqlite:///{tmp_path}/")
    assert (tmp_path / "mlflow").is_dir()


def test_nothing_listens_outside_loopback(tmp_path: Path) -> None:
    env = environment({"HYMIREC_STATE": str(tmp_path), "AIRFLOW_PORT": "9090"})
    assert env["AIRFLOW__API__HOST"] == env["SPARK_LOCAL_IP"] == "127.0.0.1"
    assert env["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:9090"
    assert env["AIRFLOW__API__PORT"] == "9090"


def test_the_secret_is_made_once_and_kept_to_the_owner(tmp_path: Path) -> None:
    base = {"HYMIREC_STATE": str(tmp_path)}
    secret = environment(base)["AIRFLOW__API_AUTH__JWT_SECRET"]
    assert len(secret) >= 64
    assert environment(base)["AIRFLOW__API_AUTH__JWT_SECRET"] == secret
    assert stat.S_IMODE((tmp_path / "airflow" / "jwt_secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "airflow").stat().st_mode) == 0o700


def test_given_settings_win_over_defaults(tmp_path: Path) -> None:
    given = {
        "MLFLOW_TRACKING_URI": "http://tracking:5000",
        "HYMIREC_SCHEDULE": "@daily",
        "CUDA_VISIBLE_DEVICES": "",
    }
    env = environment({"HYMIREC_STATE": str(tmp_path), **given})
    assert {key: env[key] for key in given} == given


def test_spark_connection_is_local(tmp_path: Path) -> None:
    env = environment({"HYMIREC_STATE": str(tmp_path)})
    assert json.loads(env["AIRFLOW_CONN_SPARK_DEFAULT"]) == {"conn_type": "spark", "host": "local[*]"}


def test_paths_come_first_and_once(tmp_path: Path, repository: Path) -> None:
    env = environment({"HYMIREC_STATE": str(tmp_path), "PATH": f"/bin{os.pathsep}{sys.prefix}/bin"})
    assert env["PATH"] == f"{sys.prefix}/bin{os.pathsep}/bin"
    assert environment(env)["PYTHONPATH"] == str(repository)


@pytest.mark.parametrize("value", ["http", "0", "65536", "-1"])
def test_bad_port(tmp_path: Path, value: str) -> None:
    with pytest.raises(SettingError, match=f"AIRFLOW_PORT: seen '{value}'; allowed: a port number"):
        environment({"HYMIREC_STATE": str(tmp_path), "AIRFLOW_PORT": value})


def test_exports_can_be_read_by_a_shell(tmp_path: Path, repository: Path) -> None:
    env = {**os.environ, "HYMIREC_STATE": str(tmp_path / "a b")}
    script = f'eval "$({sys.executable} -m infra.local_env)"; echo "$AIRFLOW_HOME"'
    done = subprocess.run(["bash", "-c", script], cwd=repository, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "a b" / "airflow")


def test_runs_a_command(repository: Path) -> None:
    base = [sys.executable, "-m", "infra.local_env", "--"]
    assert subprocess.run([*base, "sh", "-c", "exit 7"], cwd=repository, check=False).returncode == 7
    done = subprocess.run([*base, "no-such-program"], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert done.stderr == "error: no-such-program: No such file or directory\n"
