"""The Makefile says what it offers, and hands values on unharmed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from jobs.platform import releases
from jobs.platform.warehouse import Warehouse
from tests import tiny_release

DESIGNED = {
    "demo",
    "test",
    "up",
    "down",
    "trigger",
    "run",
    "inspect",
    "compare",
    "lock",
    "lint",
    "clean",
    "setup",
    "help",
}


def make(repository: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", *arguments],
        cwd=repository,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_target_is_explained(repository: Path) -> None:
    text = (repository / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", text, re.M))
    explained = set(re.findall(r"^  make ([a-z-]+) +\S", make(repository, "help").stdout, re.M))
    assert explained == targets >= DESIGNED
    phony = {name for line in re.findall(r"^\.PHONY: (.*)", text, re.M) for name in line.split()}
    assert phony == targets


def test_plain_make_shows_the_help(repository: Path) -> None:
    assert make(repository).stdout == make(repository, "help").stdout


@pytest.mark.parametrize(
    ("arguments", "does"),
    [
        (("test", "PYTEST=-k codebook"), "-m pytest -n 2 --no-loadscope-reorder -k codebook"),
        (("docs",), "-m infra.config_docs"),
    ],
)
def test_what_a_target_does(repository: Path, arguments: tuple[str, ...], does: str) -> None:
    assert does in make(repository, "-n", *arguments).stdout


def test_inspect_does_not_take_the_shells_user_for_a_person(repository: Path) -> None:
    done = make(repository, "inspect", USER="root")
    assert done.returncode != 0
    assert "error: which person? make inspect USER=" in done.stderr


def test_values_are_not_touched_by_a_shell(repository: Path) -> None:
    done = make(repository, "-n", "inspect", "USER=x'; touch /tmp/harm; '")
    assert "harm" not in done.stdout
    done = make(repository, "-n", "compare", "A=x'; touch /tmp/harm; '", 'B="; touch /tmp/harm; "')
    assert "compare_releases" in done.stdout and "harm" not in done.stdout


@pytest.mark.parametrize("option", ["A", "B"])
def test_compare_gets_ids_as_they_are_given(repository: Path, tmp_path: Path, option: str) -> None:
    releases.switch(tiny_release.make(Warehouse(str(tmp_path)), "2020-03-20"))
    odd = """-x 'y" ; touch harm"""
    # -o: the environment of the tests is good enough
    done = make(repository, "-o", "setup", "compare", f"{option}={odd}", f"WAREHOUSE={tmp_path}")
    assert done.returncode != 0
    assert f"error: release id: seen {odd!r}; allowed: a day and 8 hex digits" in done.stderr


def test_clean_removes_our_state_and_nothing_else(repository: Path, tmp_path: Path) -> None:
    state, home = tmp_path / "state", tmp_path / "home"
    for path in (state / "warehouse" / "x", state / "airflow" / "jwt_secret", state / "notes", home / "airflow" / "x"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    done = make(repository, "clean", HYMIREC_STATE=str(state))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in state.iterdir()] == ["notes"]
    done = make(repository, "clean", HYMIREC_STATE=str(home))
    assert done.returncode != 0 and f"seen {home}, which holds no state of ours" in done.stderr
    assert (home / "airflow" / "x").exists()


def test_run_asks_for_a_day(repository: Path) -> None:
    done = make(repository, "run")
    assert done.returncode != 0
    assert "error: which day? make run DS=" in done.stderr


@pytest.mark.parametrize("value", ["80a", "0", "70000"])
def test_ports_are_checked(repository: Path, value: str) -> None:
    done = make(repository, "up", f"AIRFLOW_PORT={value}")
    assert done.returncode != 0
    assert f"error: AIRFLOW_PORT: seen '{value}'; allowed: a port number from 1 to 65535" in done.stderr
