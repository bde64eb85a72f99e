"""The rules of the house hold: style, types, and which package may import which."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BINARIES = Path(sys.prefix) / "bin"


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], ["lint-imports"]],
    ids=lambda command: " ".join(command),
)
def test_check_passes(repository: Path, command: list[str]) -> None:
    done = subprocess.run(
        [str(BINARIES / command[0]), *command[1:]],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def test_files_stay_readable(repository: Path) -> None:
    """A file of much more than 300 lines is usually two files."""
    folders = ("benchmarks", "dags", "hymirec_model", "infra", "jobs", "tests")
    files = [path for folder in folders for path in (repository / folder).rglob("*.py")]
    long = {str(path): n for path in files if (n := len(path.read_text().splitlines())) > 330}
    assert not long
