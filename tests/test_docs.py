"""The documents name only what exists: files, links, commands with their options, settings, errors, tables."""

from __future__ import annotations

import ast
import functools
import importlib
import re
import typing
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from jobs.platform.contracts import EVENTS_FILE, ITEMS_FILE
from jobs.platform.profile import Profile

REPOSITORY = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted(
    str(path.relative_to(REPOSITORY))
    for folder in (".", "docs", "benchmarks")
    for path in (REPOSITORY / folder).glob("*.md")
)
FOLDERS = ("benchmarks", "dags", "docs", "hymirec_model", "infra", "jobs", "results", "tests")
SOURCES = ("lock", "md", "py", "sh", "toml", "txt", "yaml")  # endings of files that are in git
DATA = ("faiss", "json", "npy", "parquet", *SOURCES)


@functools.cache
def text_of(document: str) -> str:
    return (REPOSITORY / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", text_of(document), re.M | re.S)


def spans(document: str) -> list[str]:
    """What stands in backticks outside of fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text_of(document), flags=re.M | re.S))


def commands(document: str) -> list[str]:
    """Lines of fenced blocks that are not Python or a picture, and spans, without comments."""
    lines = [line for language, block in blocks(document) if not language for line in block.splitlines()]
    return [re.sub(r"\s+# .*", "", line) for line in (*lines, *spans(document))]


@functools.cache
def anchors(path: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def exists(document: str, name: str) -> bool:
    """Whether a file is there, seen from the root or from the document's folder."""
    return (REPOSITORY / name).exists() or ((REPOSITORY / document).parent / name).exists()


@functools.cache
def options(module: str) -> set[str]:
    """Options of a job's command line."""
    app = typer.Typer()
    app.command()(importlib.import_module(module).main)
    command = typer.main.get_command(app)
    return {"-h", "--help", *(option for parameter in command.params for option in parameter.opts)}


def test_all_documents_are_looked_at() -> None:
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/README.md"} <= set(DOCUMENTS)
    pages = ("architecture", "configuration", "deployment", "method", "operations", "own-data")
    assert {f"docs/{name}.md" for name in pages} <= set(DOCUMENTS)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = ((REPOSITORY / document).parent / name).resolve() if name else REPOSITORY / document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_exist(document: str) -> None:
    """Files of the repository; NAME stands for any name."""
    inside_folders, bare = rf"(?:{'|'.join(FOLDERS)})/[\w./-]*", rf"[\w-]+\.(?:{'|'.join(SOURCES)})"
    named = {span for span in spans(document) if re.fullmatch(rf"{inside_folders}|{bare}", span) and "NAME" not in span}
    missing = {name for name in named if not exists(document, name)}
    # A bare name is enough where the text around it says which folder is meant.
    inside = {path.name for folder in FOLDERS if folder != "results" for path in (REPOSITORY / folder).rglob("*.*")}
    assert not {name for name in missing if "/" in name or name not in inside}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_commands_and_their_variables_exist(document: str) -> None:
    makefile = text_of("Makefile")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))
    used = [command for command in commands(document) if re.match(r"(?:[A-Z_]+=\S+ )*make\b", command)]
    named = {name for command in used for name in re.findall(r"\bmake ([a-z][a-z-]*)(?![\w-])", command)}
    assert named <= targets
    variables = {name for command in used for name in re.findall(r"\b([A-Z][A-Z_]+)=", command.partition("make")[2])}
    assert not {name for name in variables if not re.search(rf"\b{name}\b", makefile)}
    scripts = "".join(path.read_text() for path in (REPOSITORY / "benchmarks").glob("*.py"))
    for given in (given for command in (*used, *spans(document)) for given in re.findall(r'ARGS="([^"]*)"', command)):
        for option in re.findall(r"--([a-z-]+)", given):
            # typer makes an option of a parameter's name, or it is spelt out
            assert re.search(rf'"--{option}"|^    {option.replace("-", "_")}: ', scripts, re.M), f"{given}: --{option}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_jobs_and_their_options_exist(document: str) -> None:
    for command in commands(document):
        for started in command.split("python -m ")[1:]:  # one may start another
            module, *words = re.split(r"\s+", re.sub(r"[)\"].*", "", started).strip())
            if not re.fullmatch(r"[a-z_.]+", module):
                continue  # a name that stands for any job
            assert (REPOSITORY / f"{module.replace('.', '/')}.py").is_file(), command
            given = {word for word in words if re.match(r"--?[a-z]", word)} - {"--help"}
            if module.startswith("jobs.") and given:
                assert given <= options(module), command


@pytest.mark.parametrize("document", DOCUMENTS)
def test_settings_exist(document: str) -> None:
    """Keys written ``section.key``; the sections index and evaluation are names of files too."""
    hints = typing.get_type_hints(Profile)
    for span in spans(document):
        match = re.fullmatch(r"([a-z_]+)\.([a-z_]+)", span)
        if match and match[1] in hints and match[2] not in DATA:
            assert match[2] in {entry.name for entry in fields(hints[match[1]])}, span


@pytest.mark.parametrize("document", DOCUMENTS)
def test_variables_of_the_environment_exist(document: str) -> None:
    named = set(re.findall(r"\bHYMIREC_[A-Z]+\b", text_of(document)))
    folders = (REPOSITORY / folder for folder in ("dags", "infra", "jobs"))
    code = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    assert not {name for name in named if name not in code}


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if "```python" in text_of(name)])
def test_snippets_compile(document: str) -> None:
    for language, snippet in blocks(document):
        if language != "python":
            continue
        imported = {
            (node.names[0].name if isinstance(node, ast.Import) else str(node.module)).split(".")[0]
            for node in ast.walk(compile(snippet, document, "exec", ast.PyCF_ONLY_AST))
            if isinstance(node, ast.Import | ast.ImportFrom)
        }
        # Either nothing of ours, so that any service can do it, or our interface alone.
        assert imported <= {"json", "os", "pathlib", "faiss", "numpy", "pyarrow"} or imported in ({"jobs"}, {"airflow"})


def test_the_readme_names_the_first_commands() -> None:
    named = {command.split()[1] for command in commands("README.md") if re.match(r"make [a-z]", command)}
    assert {"demo", "test", "run", "up", "trigger", "status", "down", "inspect"} <= named
    assert any("python -m jobs.import_events" in command for command in commands("README.md"))


def test_columns_of_own_data_are_those_of_the_contract() -> None:
    table = text_of("README.md").partition("## Your own data")[2].partition("\n\nEach day")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")][1:]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {column.name for column in (*EVENTS_FILE, *ITEMS_FILE)}


def table_of(document: str, first: str) -> list[list[str]]:
    """Cells of the table whose first heading is ``first``."""
    table = text_of(document).partition(f"\n| {first} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()[2:]]


def test_errors_of_the_operations_page_end_with_their_code() -> None:
    from hymirec_model.errors import InputError
    from jobs.platform import errors, manifest, parts, resolver

    known = {**vars(errors), **vars(manifest), **vars(parts), **vars(resolver), "InputError": InputError}
    named = {}
    for error, code, *_ in table_of("docs/operations.md", "error"):
        for name in re.findall(r"`(\w+)`", error):
            named[name] = int(code)
    assert named == {name: getattr(known[name], "exit_code", 2) for name in named}
    ours = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and kind.__module__ == errors.__name__
    }
    assert ours <= named.keys()


def test_tables_of_the_architecture_page_are_those_that_jobs_write() -> None:
    sources = {path.stem: path.read_text() for path in (REPOSITORY / "jobs").glob("*.py")}
    rows = table_of("docs/architecture.md", "table")
    for table, writer, readers, _ in rows:
        writes = f'write_partition("{table[1:-1]}"' in sources[writer]
        assert writes or table in ("`events`", "`items`", "`deletions`", "`quarantine`", "`model_choice`"), table
        assert not set(readers.split(", ")) - sources.keys() - {"people", "champion_serves"}, table
    code = "".join(path.read_text() for path in (REPOSITORY / "jobs").rglob("*.py"))
    written = {*re.findall(r'write_partition\("(\w+)"', code), "events", "items", "deletions", "model_choice"}
    assert {row[0][1:-1] for row in rows} == written


def test_the_picture_of_the_dag_has_all_its_tasks() -> None:
    picture = dict(blocks("docs/architecture.md"))["mermaid"]
    named = set(re.findall(r'^        Job\(\s+"(\w+)",\s+(\w+)', text_of("dags/refresh_jobs.py"), re.M))
    assert len(named) == 13
    for name, operator in named:
        assert re.search(rf"\[{name} {'S' if operator == 'SparkJobOperator' else 'L'}[\]:]", picture), name
