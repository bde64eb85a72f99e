"""Partitions are transactions: nothing half-written is seen, on a local folder or an object store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.platform.errors import MissingPartition, WarehouseError
from jobs.platform.warehouse import Partition, Warehouse

DS = "2024-02-29"


def write(wh: Warehouse, value: int, ds: str = DS, table: str = "histories") -> None:
    with wh.write_partition(table, ds) as part:
        part.write_table(pa.table({"x": [value]}))
        part.info["value"] = value


def value_of(wh: Warehouse, partition: Partition) -> int:
    data = wh.read(partition)
    assert data.column("x").to_pylist() == [partition.info["value"]]
    return int(partition.info["value"])


def remote(folder: Path) -> Warehouse:
    """A warehouse whose filesystem is not local as far as the code can tell."""
    (folder / "bucket").mkdir(parents=True, exist_ok=True)
    return Warehouse("s3a://bucket/wh", filesystem=pafs.SubTreeFileSystem(str(folder), pafs.LocalFileSystem()))


@pytest.fixture(params=["local", "remote"])
def wh(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    monkeypatch.setenv("HYMIREC_CACHE", str(tmp_path / "cache"))
    return Warehouse(str(tmp_path / "wh")) if request.param == "local" else remote(tmp_path / "store")


def test_a_partition_is_read_back_with_its_facts(wh: Warehouse) -> None:
    with wh.write_partition("encoder", DS) as part:
        (part.local / "deep").mkdir()
        (part.local / "deep" / "config.json").write_text("{}")
        part.write_table(pa.table({"x": [1, 2]}), "bucket=001/part-00000.parquet")
        part.info["version"] = "v1"
    found = wh.partition("encoder", DS)
    assert found.info == {"version": "v1"}
    assert found.rows == 2
    assert sorted(found.files) == ["bucket=001/part-00000.parquet", "deep/config.json"]
    assert found.files["deep/config.json"] == 2
    assert wh.read(found).to_pydict() == {"x": [1, 2]}
    copy = wh.local_copy(found)
    assert (copy / "deep" / "config.json").read_text() == "{}"
    assert wh.local_copy(found) == copy


def test_an_exception_leaves_the_old_partition(wh: Warehouse) -> None:
    write(wh, 1)
    with pytest.raises(RuntimeError), wh.write_partition("histories", DS) as part:
        part.write_table(pa.table({"x": [2]}))
        raise RuntimeError("crash")
    assert value_of(wh, wh.partition("histories", DS)) == 1
    with pytest.raises(RuntimeError), wh.write_partition("catalog", DS) as part:
        part.write_table(pa.table({"x": [2]}))
        raise RuntimeError("crash")
    assert wh.partitions("catalog") == []
    assert wh.latest("catalog") is None


def test_a_killed_writer_leaves_the_old_partition(tmp_path: Path) -> None:
    wh = Warehouse(str(tmp_path))
    write(wh, 1)
    code = (
        "import os, sys, pyarrow as pa\n"
        "from jobs.platform.warehouse import Warehouse\n"
        f"with Warehouse(sys.argv[1]).write_partition('histories', '{DS}') as part:\n"
        "    part.write_table(pa.table({'x': [2]}))\n"
        "    os._exit(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == 9
    assert value_of(wh, wh.partition("histories", DS)) == 1
    write(wh, 3)  # the next attempt does not stumble over the torn one
    assert value_of(wh, wh.partition("histories", DS)) == 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["start", "commit", "crash"]), st.integers(0, 2)), min_size=1, max_size=14))
def test_overlapping_writers_last_commit_counts(steps: list[tuple[str, int]]) -> None:
    """Three writers start, commit and crash in any order: readers always see the last commit, whole."""
    with tempfile.TemporaryDirectory() as folder:
        wh = Warehouse(folder)
        running: dict[int, tuple[ExitStack, int]] = {}
        expected: int | None = None
        for number, (step, writer) in enumerate(steps):
            if step == "start" and writer not in running:
                stack = ExitStack()
                part = stack.enter_context(wh.write_partition("histories", DS))
                part.write_table(pa.table({"x": [number]}))
                part.info["value"] = number
                running[writer] = stack, number
            elif step == "commit" and writer in running:
                stack, expected = running.pop(writer)
                stack.close()
            elif step == "crash" and writer in running:
                stack, _ = running.pop(writer)
                stack.__exit__(RuntimeError, RuntimeError("crash"), None)
            latest = wh.latest("histories")
            assert (None if latest is None else value_of(wh, latest)) == expected
        for stack, _ in running.values():
            stack.__exit__(RuntimeError, RuntimeError("crash"), None)


def test_readers_never_see_a_torn_partition(tmp_path: Path) -> None:
    wh = Warehouse(str(tmp_path))
    write(wh, 0)

    def rewrite() -> None:
        for value in range(1, 40):
            write(wh, value)

    def read() -> int:
        found = wh.partition("histories", DS)
        try:
            return value_of(wh, found)
        except FileNotFoundError:  # allowed for a reader so slow that two newer ones were finished meanwhile
            assert wh.partition("histories", DS).info["value"] >= found.info["value"] + 2
            return int(found.info["value"])

    seen, end = [], time.monotonic() + 60
    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(rewrite)
        while not writer.done() and time.monotonic() < end:
            seen.append(read())
        writer.result(timeout=60)
    assert seen == sorted(seen) and len(set(seen)) > 1
    assert read() == 39


def test_only_the_current_and_the_previous_attempt_stay(wh: Warehouse) -> None:
    for value in range(4):
        write(wh, value)
    assert len(wh.storage.folders(f"histories/ds={DS}")) == 2


def test_an_abandoned_attempt_is_removed_after_a_day(tmp_path: Path) -> None:
    wh = Warehouse(str(tmp_path))
    torn = tmp_path / "histories" / f"ds={DS}" / "torn" / "part-0.parquet"
    torn.parent.mkdir(parents=True)
    torn.write_bytes(b"x")
    write(wh, 1)
    assert torn.exists()  # a retry may still be writing it
    for path in (torn, torn.parent):
        os.utime(path, (0, 0))
    write(wh, 2)
    assert not torn.exists()


def test_a_folder_takes_the_place_of_another(wh: Warehouse, tmp_path: Path) -> None:
    for value in (1, 2):
        (tmp_path / "new").mkdir()
        pq.write_table(pa.table({"x": [value]}), tmp_path / "new" / f"part-{value}.parquet")
        wh.storage.upload(tmp_path / "new", ".import/new")
        names = [f"part-{value}.parquet"]
        wh.storage.put(".import/new", "items", names)
        wh.storage.put(".import/new", "items", names)  # as after a crash: changes nothing
        assert wh.read(wh.items()).to_pydict() == {"x": [value]}
        assert wh.storage.folders(".import") == []
        shutil.rmtree(tmp_path / "new")


def test_nothing_written_is_an_error(wh: Warehouse) -> None:
    with (
        pytest.raises(WarehouseError, match=f"histories/ds={DS}: the job wrote no file"),
        wh.write_partition("histories", DS),
    ):
        pass


def test_spark_names_become_reproducible(tmp_path: Path) -> None:
    wh = Warehouse(str(tmp_path))
    with wh.write_partition("histories", DS) as part:
        folder = part.local / "bucket=000"
        folder.mkdir()
        for number in (1, 0):
            name = f"part-0000{number}-0a1b2c3d-0000-4000-8000-00000000000{number}.c000.zstd.parquet"
            pq.write_table(pa.table({"x": [number]}), folder / name)
            (folder / f".{name}.crc").write_bytes(b"crc")
        (part.local / "_SUCCESS").write_bytes(b"")
    found = wh.partition("histories", DS)
    assert list(found.files) == ["bucket=000/part-00000.parquet", "bucket=000/part-00001.parquet"]
    assert wh.read(found).to_pydict() == {"x": [0, 1]}
    assert not list(Path(found.path).rglob("*.crc"))


def test_partitions_and_latest(wh: Warehouse) -> None:
    for ds in ("2024-01-03", "2024-01-01"):
        write(wh, 1, ds)
    assert wh.partitions("histories") == ["2024-01-01", "2024-01-03"]
    newest = {until: wh.latest("histories", until) for until in ("2024-01-04", "2024-01-03", "2024-01-02")}
    assert {until: p and p.ds for until, p in newest.items()} == {
        "2024-01-04": "2024-01-03",
        "2024-01-03": "2024-01-03",
        "2024-01-02": "2024-01-01",
    }
    before = wh.latest("histories", "2024-01-03", strict=True)
    assert before is not None and before.ds == "2024-01-01"
    assert wh.latest("histories", "2024-01-01", strict=True) is None
    assert wh.find("histories", "2024-01-02") is None


def test_input_tables(tmp_path: Path) -> None:
    wh = Warehouse(str(tmp_path))
    with pytest.raises(MissingPartition, match="missing partition items: the table has no data yet"):
        wh.items()
    for name in ("ds=2024-01-02/a.parquet", "ds=2024-01-01/_SUCCESS", "ds=yesterday/a.parquet"):
        path = tmp_path / "events" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
    (tmp_path / "events" / "ds=2024-01-03").mkdir()
    assert wh.partitions("events") == ["2024-01-02"]
    assert wh.partition("events", "2024-01-02").files == {"a.parquet": 1}
    for ds in ("2024-01-01", "2024-01-03"):
        message = f"missing partition events/ds={ds}: newest there is ds=2024-01-02"
        with pytest.raises(MissingPartition, match=message):
            wh.partition("events", ds)
    with pytest.raises(WarehouseError, match="events is an input table"), wh.write_partition("events", DS):
        pass


def test_missing_partition_tells_what_to_do(wh: Warehouse) -> None:
    write(wh, 1, "2024-01-01")
    message = (
        "missing partition histories/ds=2024-01-02: newest there is ds=2024-01-01; "
        "run the job that writes histories for ds=2024-01-02 first"
    )
    with pytest.raises(MissingPartition, match=message):
        wh.partition("histories", "2024-01-02")


@pytest.mark.parametrize("table", ["../secrets", "a/b", "", "Histories", "a.b", "ds=2024-01-01"])
def test_table_names_cannot_lead_out(wh: Warehouse, table: str) -> None:
    with pytest.raises(WarehouseError, match="table name: seen"):
        wh.partition(table, DS)


@pytest.mark.parametrize("ds", ["..", "2024-1-1", "2024-02-30", "", "20240101", "2024-01-01/.."])
def test_days_cannot_lead_out(wh: Warehouse, ds: str) -> None:
    with pytest.raises(WarehouseError, match="ds: seen"):
        wh.partition("histories", ds)


def test_uris(tmp_path: Path) -> None:
    assert Warehouse(f"file://{tmp_path}").uri == str(tmp_path)
    assert remote(tmp_path).uri == "s3a://bucket/wh"
    for uri in ("", "ftp://host/x", "http://host/x"):
        with pytest.raises(WarehouseError, match="warehouse URI: seen"):
            Warehouse(uri)


def test_a_failed_attempt_stays_for_the_next_one_where_it_can_be_resumed(wh: Warehouse) -> None:
    def attempt(*, resumable: bool, fails: bool) -> None:
        with wh.write_partition("histories", DS, resumable=resumable) as part:
            folder = part.path.removeprefix(f"{wh.uri}/")
            wh.filesystem.create_dir(wh.storage.path(folder))
            wh.storage.replace(f"{folder}/file", b"what a worker has done")
            if fails:
                raise RuntimeError("out of memory")

    write(wh, 1)
    for resumable in (False, True):
        with pytest.raises(RuntimeError, match="out of memory"):
            attempt(resumable=resumable, fails=True)
    (left,) = wh.unfinished_attempts("histories", DS)
    assert list(wh.storage.files(left)) == ["file"]
    attempt(resumable=True, fails=False)
    assert wh.unfinished_attempts("histories", DS) == []
