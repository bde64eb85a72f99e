"""Storage, partitions, releases and imports on an S3-compatible store, through the filesystem that the URI names."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.platform import releases, retention, staging
from jobs.platform.errors import WarehouseError
from jobs.platform.manifest import NoRelease, ReleaseError
from jobs.platform.releases import Release
from jobs.platform.storage import Storage
from jobs.platform.warehouse import Warehouse
from tests.object_store import ObjectStore
from tests.tiny_release import make

DS = "2024-02-29"
MANY = 1100  # files; a store lists and deletes 1,000 a request


@pytest.fixture
def wh(bucket: str) -> Warehouse:
    return Warehouse(f"s3a://{bucket}/wh")


def write(wh: Warehouse, value: int, ds: str = DS) -> None:
    with wh.write_partition("histories", ds) as part:
        part.write_table(pa.table({"x": [value]}))
        part.info["value"] = value


def value_of(wh: Warehouse) -> int:
    found = wh.partition("histories", DS)
    assert wh.read(found).column("x").to_pylist() == [found.info["value"]]
    return int(found.info["value"])


def killed(code: str, *arguments: str) -> int:
    """Exit code of a Python process that runs ``code``."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True).returncode


class TestStorage:
    def test_the_usual_variables_name_the_store(self, bucket: str, object_store: ObjectStore) -> None:
        for uri in (f"s3://{bucket}/wh", f"s3a://{bucket}/wh"):
            storage = Storage(uri)
            assert (storage.uri, storage.root, storage.local) == (f"s3a://{bucket}/wh", f"{bucket}/wh", None)
            storage.replace("deep/file", uri.encode())
            assert Storage(uri).read("deep/file") == uri.encode()
        assert f"PUT /{bucket}/wh/deep/file HTTP" in object_store.log(), "a small file is one request"

    def test_a_bucket_that_does_not_exist(self, bucket: str) -> None:
        with pytest.raises(WarehouseError, match="and no bucket nobody-made-this; allowed: a bucket that exists"):
            Storage("s3a://nobody-made-this/wh")

    def test_what_is_not_there(self, wh: Warehouse) -> None:
        storage = wh.storage
        assert storage.read("no/file") is None and storage.existing(["no/file"]) == [False]
        assert storage.files("no") == {} and storage.folders("no") == []
        storage.remove("no")
        storage.remove_file("no/file")

    def test_more_files_than_one_request_lists_or_deletes(self, wh: Warehouse) -> None:
        with wh.write_partition("interests", DS) as part:
            for number in range(MANY):
                (part.local / f"part-{number:05d}.bin").write_bytes(b"x")
        assert len(wh.partition("interests", DS).files) == MANY
        wh.storage.remove(wh.partition("interests", DS).folder)
        with pytest.raises(WarehouseError, match="seen no such file"):
            wh.partition("interests", DS)

    def test_a_folder_without_files_may_be_about_to_be_written(self, wh: Warehouse) -> None:
        wh.storage.filesystem.create_dir(wh.storage.path("histories", f"ds={DS}", "attempt"), recursive=True)
        wh.storage.replace(f"histories/ds={DS}/other/part.parquet", b"x")
        assert not wh.storage.abandoned(f"histories/ds={DS}/attempt")
        assert not wh.storage.abandoned(f"histories/ds={DS}/other")

    def test_two_processes_that_want_the_same_folder_here(self, wh: Warehouse) -> None:
        for number in range(20):
            wh.storage.replace(f"models/{number}", b"x")
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(wh.local_folder, ["models"] * 8))
        assert len(set(found)) == 1 and len(list(found[0].iterdir())) == 20
        assert [path.name for path in found[0].parent.iterdir()] == ["models"]


class TestPartitions:
    def test_a_commit_is_read_back_and_old_attempts_go(self, wh: Warehouse) -> None:
        for value in range(4):
            write(wh, value)
            assert value_of(wh) == value
        assert len(wh.storage.folders(f"histories/ds={DS}")) == 2
        write(wh, 9, "2024-03-01")
        assert wh.partitions("histories") == [DS, "2024-03-01"]
        newest = wh.latest("histories", "2024-03-01", strict=True)
        assert newest is not None and newest.ds == DS

    def test_names_of_spark_become_reproducible(self, wh: Warehouse) -> None:
        with wh.write_partition("histories", DS) as part:
            folder = part.path.removeprefix(f"{wh.uri}/")
            for number in (1, 0):
                name = f"part-0000{number}-0a1b2c3d-0000-4000-8000-00000000000{number}.c000.zstd.parquet"
                pq.write_table(
                    pa.table({"x": [number]}),
                    wh.storage.path(folder, "bucket=000", name),
                    filesystem=wh.filesystem,
                )
            wh.storage.replace(f"{folder}/_SUCCESS", b"x")
        found = wh.partition("histories", DS)
        assert list(found.files) == ["bucket=000/part-00000.parquet", "bucket=000/part-00001.parquet"]
        assert wh.read(found).to_pydict() == {"x": [0, 1]}

    def test_an_exception_leaves_nothing_but_the_old(
        self, wh: Warehouse, bucket: str, object_store: ObjectStore
    ) -> None:
        write(wh, 1)
        before = wh.storage.files("")
        with pytest.raises(RuntimeError), wh.write_partition("histories", DS) as part:
            part.write_table(pa.table({"x": [2]}))
            wh.storage.replace(f"{part.path.removeprefix(f'{wh.uri}/')}/by-a-worker.parquet", b"x" * (12 << 20))
            raise RuntimeError("crash")
        assert wh.storage.files("") == before and value_of(wh) == 1
        assert object_store.torn_uploads(bucket) == 0

    def test_a_killed_writer_leaves_the_old(self, wh: Warehouse, bucket: str, object_store: ObjectStore) -> None:
        write(wh, 1)
        code = (
            "import os, sys, pyarrow as pa\n"
            "from jobs.platform.warehouse import Warehouse\n"
            "wh = Warehouse(sys.argv[1])\n"
            f"with wh.write_partition('histories', '{DS}') as part:\n"
            "    wh.storage.replace(part.path.removeprefix(wh.uri + '/') + '/part-0.parquet', b'x')\n"
            "    stream = wh.filesystem.open_output_stream(wh.storage.path('histories', 'small'))\n"
            "    stream.write(b'half of')\n"
            "    os._exit(9)\n"
        )
        assert killed(code, wh.uri) == 9
        assert value_of(wh) == 1 and object_store.torn_uploads(bucket) == 0
        assert wh.storage.read("histories/small") is None
        write(wh, 3)
        assert value_of(wh) == 3

    def test_readers_never_see_a_torn_partition(self, wh: Warehouse) -> None:
        write(wh, 0)
        seen, end = [], time.monotonic() + 60
        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(lambda: [write(wh, value) for value in range(1, 15)])
            while not writer.done() and time.monotonic() < end:
                try:
                    seen.append(value_of(wh))
                except (FileNotFoundError, WarehouseError):  # two newer ones were finished while it was being read
                    continue
            writer.result(timeout=60)
        assert seen == sorted(seen) and len(set(seen)) > 1
        assert value_of(wh) == 14


class TestReleases:
    def test_sealed_switched_opened_and_read(self, wh: Warehouse) -> None:
        made = make(wh, "2020-01-05")
        assert releases.current_id(wh) is None
        releases.switch(made)
        found = Release.open(wh.uri, full=True)
        assert found.id == made.id and found.table("items")["item_id"].to_pylist() == ["one", "b"]
        assert (found.local() / "index" / "index.faiss").read_text() == "one"
        assert make(wh, "2020-01-05").id == made.id, "the same content is left as it is"
        wh.storage.replace(f"{made.folder}/index/index.faiss", b"two")
        with pytest.raises(ReleaseError, match=r"index/index\.faiss has other content"):
            Release.open(wh, full=True)

    def test_readers_never_see_half_a_switch(self, wh: Warehouse) -> None:
        """Two switch at once, and neither waits: one of them counts, whole, and every reader gets a release."""
        made = [make(wh, "2020-01-05"), make(wh, "2020-01-06", "two")]
        releases.switch(made[0])
        with ThreadPoolExecutor(3) as pool:
            turns = [pool.submit(lambda one=one: [releases.switch(one) for _ in range(25)]) for one in made]
            seen = {Release.open(wh).id for _ in range(15)}
            for turn in turns:
                turn.result(timeout=60)
        assert seen <= {one.id for one in made}
        assert releases.current_id(wh) in {one.id for one in made}

    def test_a_release_without_its_manifest_is_none(self, wh: Warehouse) -> None:
        """What a publish leaves that dies during the upload; the next one repairs it."""
        made = make(wh, "2020-01-05")
        wh.storage.remove_file(f"{made.folder}/manifest.json")
        with pytest.raises(NoRelease):
            Release.open(wh, made.id)
        assert Release.open(wh, make(wh, "2020-01-05").id, full=True).id == made.id

    def test_retention(self, wh: Warehouse) -> None:
        made: list[Release] = []
        for day in range(1, 6):
            made.append(make(wh, f"2020-01-0{day}", f"word {day}", parent=made[-1].id if made else None))
            releases.switch(made[-1])
        gone = retention.retire(wh, 2, [made[0].id])
        assert gone == [made[1].id, made[2].id]
        assert releases.all_ids(wh) == [made[0].id, made[3].id, made[4].id]
        assert wh.storage.files(made[1].folder) == {}
        assert Release.open(wh, made[0].id, full=True).id == made[0].id


# A process that dies at its n-th change of the store, counted from the moment the import is written.
DIES = """
import os, sys
from jobs.platform.storage import Storage
from test_object_store import import_value

class Dies:
    def __init__(self, filesystem, changes):
        self.filesystem, self.left = filesystem, changes

    def __getattr__(self, name):
        if name in ("move", "delete_file", "delete_dir", "create_dir", "open_output_stream"):
            self.left -= 1
            if self.left < 0:
                os._exit(9)
        return getattr(self.filesystem, name)

storage = Storage(sys.argv[1])

def armed():
    storage.filesystem = Dies(storage.filesystem, int(sys.argv[2]))

import_value(storage, "new", armed)
"""


def import_value(storage: Storage, value: str, written: Callable[[], object] = lambda: None) -> None:
    """Import a value into items and two days."""
    with staging.staged(storage) as folder:
        for name in ("items", f"events/ds={DS}", "events/ds=2024-03-01"):
            path = storage.path(folder, name, f"part-00000-{value}-c000.parquet")
            pq.write_table(pa.table({"x": [value]}), path, filesystem=storage.filesystem)
        written()


def imported(storage: Storage) -> set[tuple[str, ...]]:
    """Values of items and of both days."""
    names = [name for name in storage.files("") if not name.startswith(staging.FOLDER)]
    assert len(names) == 3, names
    return {
        tuple(pq.read_table(storage.path(name), filesystem=storage.filesystem, partitioning=None)["x"].to_pylist())
        for name in names
    }


class TestImports:
    def test_one_import_replaces_another(self, wh: Warehouse) -> None:
        for value in ("old", "new"):
            import_value(wh.storage, value)
            assert imported(wh.storage) == {(value,)}
        assert wh.storage.folders(staging.FOLDER) == []

    def test_an_exception_leaves_nothing(self, wh: Warehouse) -> None:
        import_value(wh.storage, "old")

        def crash() -> None:
            raise ValueError("crash")

        with pytest.raises(ValueError, match="crash"):
            import_value(wh.storage, "new", crash)
        assert imported(wh.storage) == {("old",)} and wh.storage.folders(staging.FOLDER) == []

    def test_killed_at_any_change_it_has_not_been_or_is_finished_by_the_next(
        self, wh: Warehouse, bucket: str, repository: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(repository), str(Path(__file__).parent)]))
        ended, changes = 9, 0
        outcomes = []
        while ended == 9:
            storage = Storage(f"s3a://{bucket}/{changes}")
            import_value(storage, "old")
            ended = killed(DIES, storage.uri, str(changes))
            with pytest.raises(ValueError, match="nothing"), staging.staged(storage):  # the next import, a vain one
                raise ValueError("nothing")
            (outcome,) = imported(storage)
            outcomes.append(outcome[0])
            changes += 2
        assert ended == 0
        assert outcomes[0] == "old" and outcomes[-1] == "new" and outcomes == sorted(outcomes, reverse=True)
