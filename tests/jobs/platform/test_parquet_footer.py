"""Sorting the lists of encodings changes their order and nothing else."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.platform.errors import WarehouseError
from jobs.platform.parquet_footer import _Footer, sort_encodings


@settings(max_examples=25, deadline=None)
@given(
    columns=st.integers(1, 20),
    rows=st.integers(0, 50),
    groups=st.integers(1, 3),
    nested=st.booleans(),
    statistics=st.booleans(),
)
def test_data_stay_and_lists_are_sorted(
    tmp_path_factory: pytest.TempPathFactory,
    columns: int,
    rows: int,
    groups: int,
    nested: bool,
    statistics: bool,
) -> None:
    path = tmp_path_factory.mktemp("footer") / "a.parquet"
    data = {f"c{i}": [f"{i}-{r % 3}" if i % 2 else r * 0.5 for r in range(rows)] for i in range(columns)}
    table = pa.table(data)
    if nested:
        table = table.append_column("list", pa.array([[r] * (r % 4) for r in range(rows)], pa.list_(pa.int32())))
    pq.write_table(table, path, row_group_size=rows // groups + 1, write_statistics=statistics)
    before = path.stat().st_size
    sort_encodings(path)
    assert path.stat().st_size == before
    assert pq.read_table(path).equals(table)
    once = path.read_bytes()
    sort_encodings(path)
    assert path.read_bytes() == once


def test_an_unsorted_list_is_sorted() -> None:
    # FileMetaData{4: [RowGroup{1: [ColumnChunk{3: ColumnMetaData{2: [RLE=3, PLAIN=0, RLE_DICTIONARY=8]}}]}]}
    footer = bytes.fromhex("49 1c 19 1c 3c 29 35 06 00 10 00 00 00 00".replace(" ", ""))
    reader = _Footer(footer)
    reader.struct(())
    assert reader.at == len(footer)
    assert bytes(reader.data) == footer.replace(bytes([6, 0, 16]), bytes([0, 6, 16]))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", b"PAR1\xff\xff\xff\x7fPAR1"])
def test_another_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(WarehouseError, match="seen a file that is not Parquet"):
        sort_encodings(path)
