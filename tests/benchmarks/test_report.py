from __future__ import annotations

import subprocess
from pathlib import Path

from benchmarks.report import code_commit


def git(folder: Path, *arguments: str) -> str:
    person = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(["git", *person, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_results_do_not_make_the_code_dirty(tmp_path: Path) -> None:
    results, code = tmp_path / "benchmarks" / "results" / "x.json", tmp_path / "code.py"
    results.parent.mkdir(parents=True)
    for path in (results, code):
        path.write_text("1")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "x")
    commit = git(tmp_path, "rev-parse", "--short", "HEAD")
    assert code_commit(results.parent) == commit
    results.write_text("2")
    assert code_commit(results.parent) == commit
    code.write_text("2")
    assert code_commit(results.parent) == f"{commit}-dirty"


def test_no_work_tree(tmp_path: Path) -> None:
    assert code_commit(tmp_path) == ""
