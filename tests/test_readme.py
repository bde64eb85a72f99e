"""The README names only what exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from jobs.platform.contracts import EVENTS_FILE, ITEMS_FILE


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text()


def test_make_commands_exist(readme: str, repository: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (repository / "Makefile").read_text(), re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", readme, re.M))
    assert {"demo", "test", "run", "up", "trigger", "status", "down", "inspect"} <= named <= targets


def test_make_variables_exist(readme: str, repository: Path) -> None:
    makefile = (repository / "Makefile").read_text()
    commands = re.findall(r"(?:^|`)(make [^`\n]*)", readme, re.M)
    named = {name for command in commands for name in re.findall(r"\b([A-Z][A-Z_]+)=", command)}
    assert not {name for name in named if not re.search(rf"\b{name}\b", makefile)}


def test_jobs_exist(readme: str, repository: Path) -> None:
    named = set(re.findall(r"python -m jobs\.(\w+)", readme))
    assert "import_events" in named
    assert not {name for name in named if not (repository / "jobs" / f"{name}.py").is_file()}


def test_paths_exist(readme: str, repository: Path) -> None:
    named = set(re.findall(r"`((?:benchmarks|dags|jobs|hymirec_model|infra|tests)/[\w./]*)`", readme))
    assert named
    assert not {name for name in named if not (repository / name).exists()}


def test_snippets_compile(readme: str) -> None:
    snippets = re.findall(r"^```python\n(.*?)^```$", readme, re.M | re.S)
    assert snippets
    for snippet in snippets:
        imported = {
            (node.names[0].name if isinstance(node, ast.Import) else str(node.module)).split(".")[0]
            for node in ast.walk(compile(snippet, "README.md", "exec", ast.PyCF_ONLY_AST))
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        # Either nothing of ours, so that any service can do it, or our interface alone.
        assert imported <= {"json", "pathlib", "faiss", "numpy", "pyarrow"} or imported == {"jobs"}


def test_columns_of_own_data_are_those_of_the_contract(readme: str) -> None:
    table = readme.partition("## Your own data")[2].partition("\n\nEach day")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")][1:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {column.name for column in (*EVENTS_FILE, *ITEMS_FILE)}
