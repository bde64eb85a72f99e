from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.platform.names import bucket_of
from jobs.platform.user_rows import UserRows, _may_hold
from jobs.platform.warehouse import Warehouse

BUCKETS, USERS = 3, [f"user-{number:03d}" for number in range(60)]


@pytest.fixture
def rows(tmp_path: Path) -> UserRows:
    """A table whose files have row groups of 4 users; the key is not its first column."""
    files = []
    for bucket in sorted({bucket_of(user, BUCKETS) for user in USERS}):
        here = [user for user in USERS if bucket_of(user, BUCKETS) == bucket]
        lists = [[int(user[-3:])] * 3 for user in here]
        path = tmp_path / "table" / bucket / "part-00000.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"seen": lists, "user_id": here, "n": range(len(here))}), path, row_group_size=4)
        files.append(f"{bucket}/part-00000.parquet")
    return UserRows(Warehouse(str(tmp_path)), "table", files, BUCKETS)


def test_rows_come_in_the_order_asked(rows: UserRows) -> None:
    asked = ["user-017", "user-003", "user-059", "user-003"]
    table = rows.read(asked, ["seen"])
    assert table.column_names == ["user_id", "seen"]
    assert table["user_id"].to_pylist() == asked
    assert table["seen"].to_pylist() == [[17] * 3, [3] * 3, [59] * 3, [3] * 3]


def test_users_that_are_not_there_are_left_out(rows: UserRows) -> None:
    assert rows.read(["nobody", "user-001", "zzz"], ["n"])["user_id"].to_pylist() == ["user-001"]
    assert rows.read(["nobody"], ["n"]).num_rows == 0
    assert UserRows(rows.warehouse, "table", [], BUCKETS).read(["user-001"], ["n"]).num_rows == 0


def test_other_buckets_and_row_groups_are_not_read(rows: UserRows, tmp_path: Path) -> None:
    """Everything else is overwritten, and the user's row is still found."""
    wanted = "user-030"
    for name in rows.files:
        path = tmp_path / "table" / name
        if not name.startswith(bucket_of(wanted, BUCKETS)):
            path.unlink()
            continue
        data, about = bytearray(path.read_bytes()), pq.read_metadata(path)
        for number in range(about.num_row_groups):
            group = about.row_group(number)
            bounds = group.column(1).statistics
            if not bounds.min <= wanted <= bounds.max:
                for chunk in map(group.column, range(group.num_columns)):
                    start = chunk.dictionary_page_offset or chunk.data_page_offset
                    data[start : start + chunk.total_compressed_size] = b"\xff" * chunk.total_compressed_size
        path.write_bytes(data)
        with pytest.raises(OSError):
            pq.read_table(path)
    assert rows.read([wanted], ["seen"])["seen"].to_pylist() == [[30] * 3]


def test_many_users_are_looked_up_without_comparing_each_with_each_row_group(rows: UserRows, tmp_path: Path) -> None:
    compared = 0

    class Counted(str):
        def __lt__(self, other: str) -> bool:
            nonlocal compared
            compared += 1
            return str.__lt__(self, other)

        def __ge__(self, other: str) -> bool:
            return not self < other

        def __gt__(self, other: str) -> bool:
            return self != other and self >= other

        def __le__(self, other: str) -> bool:
            return not self > other

    parquet = pq.ParquetFile(tmp_path / "table" / next(iter(rows.files)))
    groups = parquet.num_row_groups
    others = [Counted(f"zzz-{number:05d}") for number in range(4096)]
    assert groups > 3 and not any(_may_hold(parquet, group, others) for group in range(groups))
    assert compared <= 14 * groups
