"""A job that is called directly finds a Java, also on a machine that has none, and starts it as its size asks for."""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.platform.spark import MANY_ROWS


@pytest.fixture
def clone(repository: Path, tmp_path: Path) -> Path:
    """Return a folder whose .venv was set up by infra/setup.sh on a machine without Java."""
    (tmp_path / "infra").mkdir()
    for name in ("infra/setup.sh", "requirements.txt", "requirements.lock"):
        shutil.copy(repository / name, tmp_path / name)
    (tmp_path / "path").mkdir()
    for tool in Path("/usr/bin").iterdir():
        if tool.name != "java":
            (tmp_path / "path" / tool.name).symlink_to(tool)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / ".venv")], check=True)
    packages = next((tmp_path / ".venv").glob("lib/python*/site-packages"))
    (packages / "these.pth").write_text("\n".join([*site.getsitepackages(), str(repository)]))
    setup = "cat requirements.lock infra/setup.sh requirements.txt | cksum >.venv/.hymirec-setup; infra/setup.sh"
    subprocess.run(["bash", "-c", setup], cwd=tmp_path, env={"PATH": str(tmp_path / "path")}, check=True)
    assert (tmp_path / ".venv" / "java" / "bin" / "java").exists()
    return tmp_path


def test_import_on_a_machine_without_java(clone: Path) -> None:
    pq.write_table(pa.table({"user_id": ["u"], "item_id": ["a"], "timestamp": [0]}), clone / "events.parquet")
    pq.write_table(pa.table({"item_id": ["a"], "title": ["A"]}), clone / "items.parquet")
    command = [".venv/bin/python", "-m", "jobs.import_events", "--warehouse", "warehouse"]
    command += ["--events", "events.parquet", "--items", "items.parquet"]
    env = {"PATH": str(clone / "path"), "HYMIREC_STATE": str(clone / "var")}
    done = subprocess.run(command, cwd=clone, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "events: 1 rows, 1 users" in done.stdout
    assert list((clone / "warehouse" / "events" / "ds=1970-01-01").glob("*.parquet"))


@pytest.mark.parametrize(
    ("rows", "own_folder", "quick"), [(MANY_ROWS - 1, False, True), (MANY_ROWS, False, False), (MANY_ROWS, True, True)]
)
def test_the_optimising_compiler_is_for_many_rows(
    repository: Path, tmp_path: Path, rows: int, own_folder: bool, quick: bool
) -> None:
    (tmp_path / "spark-defaults.conf").write_text("spark.driver.extraJavaOptions -XX:TieredStopAtLevel=1\n")
    code = f"""
from jobs.platform.spark import session
jvm = session("tests", {rows}).sparkContext._jvm
print(jvm.java.lang.management.ManagementFactory.getRuntimeMXBean().getInputArguments())
"""
    environment = os.environ | ({"SPARK_CONF_DIR": str(tmp_path)} if own_folder else {})
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=True)
    assert ("-XX:TieredStopAtLevel=1" in done.stdout) == quick
