"""The commands of the documents, as they stand there: run here one after the other, or by the file that is named."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.platform import deletions
from jobs.platform.releases import Release, current_id
from jobs.platform.warehouse import Warehouse
from tests.integration.conftest import DAYS, Refreshed
from tests.integration.services import local
from tests.test_docs import blocks

pytestmark = pytest.mark.integration
USER, RELEASE, SET_ASIDE = "2375", "2017-12-03-0123abcd", "csv-76277982"
"""What the documents call a user, a release and an import."""
EVENTS = 200


@dataclass(frozen=True)
class Workplace:
    """A clone with a refreshed warehouse in var/ and files to import."""

    folder: Path
    environment: dict[str, str]
    names: dict[str, str]
    """What the documents name → what is there."""

    def run(self, *command: str) -> str:
        """Run a command, with the names that are here; return what it printed."""
        *start, text = command
        for name, here in self.names.items():
            text = re.sub(rf"\b{name}\b", here, text)
        done = subprocess.run(
            [*start, text], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout

    @property
    def own_state(self) -> tuple[str, str]:
        """Beginning of a command that works on data of one's own."""
        return "env", f"HYMIREC_STATE={self.folder}/own"

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(str(self.folder / "var" / "warehouse"))

    @property
    def current(self) -> str | None:
        return current_id(self.warehouse)


def explains(workplace: Workplace, printed: str) -> None:
    assert workplace.names[USER] in printed and "interest" in printed


def compares(workplace: Workplace, printed: str) -> None:
    assert all(ds in printed for ds in DAYS)


def goes_back(workplace: Workplace, printed: str) -> None:
    assert str(workplace.current).startswith(DAYS[0]) and str(workplace.current) in printed


def goes_to_the_named_one(workplace: Workplace, printed: str) -> None:
    assert workplace.current == workplace.names[RELEASE] and workplace.names[RELEASE] in printed


def deletes(workplace: Workplace, printed: str) -> None:
    assert "1 of them new" in printed
    assert workplace.names[USER] in deletions.read_deletions(workplace.warehouse).user_ids


def imports(workplace: Workplace, printed: str) -> None:
    assert re.search(r"^events: [\d,]+ rows?, ", printed, re.M) and re.search(r"^items: +[\d,]+ rows?$", printed, re.M)


def imports_and_sets_aside(workplace: Workplace, printed: str) -> None:
    imports(workplace, printed)
    (folder,) = re.findall(r"^set aside, in imports/([\w-]+):\n  1 events.timestamp: no time", printed, re.M)
    workplace.names[SET_ASIDE] = folder


IMPORT, MINE = ".venv/bin/python -m jobs.import_events --source", "$HYMIREC_STATE/warehouse"
HERE: dict[str, Callable[[Workplace, str], None]] = {
    "make inspect USER=2375": explains,
    "make compare": compares,
    'make rollback REASON="click rate fell"': goes_back,
    'make rollback REASON="click rate fell" TO=2017-12-03-0123abcd': goes_to_the_named_one,
    ".venv/bin/python -m jobs.delete_users --warehouse var/warehouse --user 2375": deletes,
    ".venv/bin/python -m jobs.delete_users --warehouse var/warehouse --file ids.txt": deletes,
    f"{IMPORT} csv --events log.csv --items items.csv --columns user_id=customer,timestamp=ts --warehouse {MINE}": (
        imports_and_sets_aside
    ),
    f"{IMPORT} jsonl --events logs --items items.jsonl.gz --item-columns title=name --warehouse {MINE}": imports,
    f"{IMPORT} parquet --events events.parquet --items items.parquet --warehouse {MINE}": imports,
    f"{IMPORT} movielens --data ml-32m --warehouse {MINE}": imports,
    f"{IMPORT} amazon-2023 --data All_Beauty --warehouse {MINE}": imports,
    f"{IMPORT} pixelrec --data Pixel200K --warehouse {MINE}": imports,
}
"""What is run here, in this order, and what must come of it."""
ELSEWHERE = {
    "make setup": ("Makefile", "\ntest: setup"),
    "make test": (".ci/run", "\nmake test"),
    "make lint": ("tests/test_house.py", '"mypy"'),
    "make docs": ("tests/infra/test_makefile.py", '"docs"'),
    "make demo": ("tests/integration/conftest.py", 'make("demo"'),
    "make run DS=": ("tests/integration/test_rollback_day.py", 'make("run"'),
    "make up": ("tests/integration/conftest.py", 'make("up"'),
    "make trigger": ("tests/integration/services.py", 'make("trigger"'),
    "make status": ("tests/integration/test_services.py", 'make("status"'),
    "make down": ("tests/integration/conftest.py", 'make("down"'),
    "airflow dags trigger hymirec_rollback": ("tests/integration/services.py", '"trigger", "hymirec_rollback"'),
    "airflow backfill create": ("tests/integration/test_backfill.py", '"backfill", "create"'),
    "airflow pools import infra/pools.json": ("tests/integration/cluster.py", '"pools", "import", str(POOLS)'),
    "export HYMIREC_STATE=": ("tests/integration/test_commands.py", 'f"HYMIREC_STATE='),
    "export HYMIREC_SPARK_POOL=": ("tests/integration/test_services.py", '"hymirec_spark"'),
    "export HYMIREC_NOTIFIER": ("tests/integration/test_backfill.py", "HYMIREC_NOTIFIER="),
    "infra/deploy/secrets.sh": ("tests/integration/cluster.py", "infra/deploy/secrets.sh"),
    # These three need a container engine or a cluster. What they start is checked against its schemas, and run as
    # processes (tests/integration/test_cluster.py).
    "docker build -f infra/deploy/Dockerfile": ("tests/infra/test_deploy.py", '"infra/deploy/Dockerfile"'),
    "docker compose ": ("tests/infra/test_deploy.py", "def compose("),
    "kubectl ": ("tests/infra/test_deploy.py", "def manifests("),
}
"""Beginnings of the other commands, the file that runs them, and a text of it that does so."""


def commands() -> list[str]:
    """Every command in a fenced block of the pages for users, without its comment."""
    pages = ("README.md", "CONTRIBUTING.md", "docs/deployment.md", "docs/operations.md", "docs/own-data.md")
    lines = [line for page in pages for language, block in blocks(page) if not language for line in block.splitlines()]
    programs = r"(?:make|airflow|python|docker|kubectl|export) |\.venv/|infra/"
    return list(dict.fromkeys(re.sub(r"\s+# .*", "", line) for line in lines if re.match(programs, line)))


def write_files(folder: Path) -> None:
    """Write a few lines of each format under the names that docs/own-data.md gives them."""
    event, item = {"user_id": "u1", "item_id": "a", "timestamp": 1709337600}, {"item_id": "a", "name": "tea"}
    review = {"user_id": "u1", "parent_asin": "a", "timestamp": 1588687728923, "rating": 5.0}
    log = ["customer,item_id,ts", *EVENTS * ["u1,a,2024-03-01 12:30:00"], "u7,a,yesterday"]
    texts = {
        "log.csv": "\n".join(log),
        "items.csv": "item_id,title\na,tea\n",
        "logs/1.jsonl": json.dumps(event),
        "ml-32m/ratings.csv": "userId,movieId,rating,timestamp\n1,1,3.5,1112486027\n",
        "ml-32m/movies.csv": "movieId,title,genres\n1,Toy Story (1995),Animation|Comedy\n",
        "All_Beauty/All_Beauty.jsonl": json.dumps(review),
        "All_Beauty/meta_All_Beauty.jsonl": json.dumps({"parent_asin": "a", "title": "soap"}),
        "Pixel200K/dataset/Pixel200K.csv": "item_id,user_id,timestamp\ni1,u1,1605059546\n",
        "Pixel200K/information/Pixel200K.csv": "item_id,title,tag,description\ni1,a turtle,Pet,wow\n",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "items.jsonl.gz").write_bytes(gzip.compress(json.dumps(item).encode()))


@pytest.fixture(scope="module")
def workplace(refreshed: Refreshed, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("workplace")
    for name in ("Makefile", ".venv", "infra", "jobs", "requirements.txt", "requirements.lock"):
        (folder / name).symlink_to(repository / name)
    shutil.copytree(refreshed.slice.warehouse, folder / "var" / "warehouse")
    shutil.copytree(refreshed.slice.state / "mlflow", folder / "var" / "mlflow")  # its aliases are switched, too
    for name in ("events.parquet", "items.parquet"):
        shutil.copy(refreshed.slice.folder / name, folder)
    write_files(folder)
    release = Release.open(Warehouse(str(folder / "var" / "warehouse")))
    first, second = release.table("interests", ["user_id"])["user_id"].to_pylist()[:2]
    (folder / "ids.txt").write_text(f"{second}\n")
    environment = local(folder / "var")
    environment["PATH"] = f"{folder}/.venv/bin:{environment['PATH']}"
    return Workplace(folder, environment, {USER: str(first), RELEASE: release.id})


def test_every_command_is_run_by_some_test(repository: Path) -> None:
    others = [command for command in commands() if command not in HERE]
    assert len(others) + len(HERE) == len(commands()), "each that is run here stands in a document"
    for command in others:
        places = [place for beginning, place in ELSEWHERE.items() if command.startswith(beginning)]
        assert places, f"no test runs: {command}"
        for file, text in places:
            assert text in (repository / file).read_text(), f"{command}: {file} lacks {text}"


@pytest.mark.parametrize("command", HERE)
def test_command(workplace: Workplace, command: str) -> None:
    state = workplace.own_state if MINE in command else ("env",)
    HERE[command](workplace, workplace.run(*state, "bash", "-c", command))


@pytest.mark.parametrize("page", ["docs/operations.md", "docs/own-data.md"])
def test_snippet(workplace: Workplace, repository: Path, page: str) -> None:
    (snippet,) = (block for language, block in blocks(page) if language == "python" and "airflow" not in block)
    state = workplace.own_state if "HYMIREC_STATE" in snippet else ("env",)
    printed = workplace.run(*state, f"PYTHONPATH={repository}", "python", "-c", snippet)
    assert {"docs/operations.md": "no such product", "docs/own-data.md": "log.csv"}[page] in printed
