"""The Spark jobs on executors that are processes of their own: what they write has the bytes of one process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyspark
import pytest
from pyspark.sql import SparkSession

from tests.integration import spark_day
from tests.integration.services import QUICK_JVM
from tests.small_day import profile

pytestmark = pytest.mark.integration

MASTER = "local-cluster[2,1,1024]"  # two workers with a core and 1,024 MB each
WRITTEN = {"log": ("accepted_events", "catalog", "histories"), "model": ("interests", "item_codes")}


def spark_home(folder: Path) -> Path:
    """Make a Spark home of links into the package: workers leave their logs in their home's folder ``work``."""
    folder.mkdir()
    for path in Path(pyspark.__path__[0]).iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def written(folder: Path) -> dict[str, bytes | object]:
    """Every file of the partitions by its content, and what stands beside it but for the attempt's name."""
    found: dict[str, bytes | object] = {}
    for name, tables in WRITTEN.items():
        for table in tables:
            place = folder / name / table / f"ds={spark_day.DAY}"
            pointer = json.loads((place / "_current.json").read_text())
            for file in pointer["files"]:
                found[f"{table}/{file}"] = (place / pointer["folder"] / file).read_bytes()
            found[table] = {key: value for key, value in pointer.items() if key not in ("folder", "previous")}
    return found


def test_two_executors_write_what_one_process_writes(spark: SparkSession, tmp_path: Path, repository: Path) -> None:
    settings = profile(tmp_path)
    spark_day.prepare(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    home = spark_home(tmp_path / "spark")
    done = subprocess.run(
        [sys.executable, "-m", "tests.integration.spark_day", str(tmp_path / "two"), settings],
        cwd=repository,
        env={
            **os.environ,
            "SPARK_HOME": str(home),
            "JAVA_TOOL_OPTIONS": QUICK_JVM,
            "PYSPARK_SUBMIT_ARGS": f"--master {MASTER} --conf spark.ui.enabled=false pyspark-shell",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    executors = [path for path in home.glob("work/app-*/*") if (path / "stderr").exists()]
    assert len(executors) >= 2, "two are there from the start; the master may replace them while it shuts down"

    spark_day.run(tmp_path / "one", settings)
    expected, seen = written(tmp_path / "one"), written(tmp_path / "two")
    assert len(expected) > 10 and seen.keys() == expected.keys()
    assert [name for name in expected if seen[name] != expected[name]] == []
