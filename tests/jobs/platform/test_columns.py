from __future__ import annotations

from pathlib import Path

import numpy as np

from jobs.platform import columns
from jobs.platform.warehouse import Warehouse
from tests.small_day import item_vectors, write_items

DAY = "2020-03-20"


def test_a_new_mapped_file_has_its_room_before_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    mapped = columns.new_mapped(path, np.float16, (100_000, 16))
    size = path.stat().st_size
    assert size > 100_000 * 16 * 2 and path.stat().st_blocks * 512 >= size, "a sparse file"
    mapped[-1] = 3
    mapped.flush()
    found = np.load(path)
    assert found.dtype == np.float16 and found.shape == mapped.shape
    assert (found[-1] == 3).all() and not found[:-1].any()


def test_a_column_is_mapped_whatever_files_it_is_spread_over(warehouse: Warehouse, tmp_path: Path) -> None:
    vectors = item_vectors(70)
    write_items(warehouse, DAY, vectors, ["2020-03-01"] * 70, files=3)
    mapped = columns.memory_mapped(warehouse, warehouse.partition("item_vectors", DAY), "vector", tmp_path / "v.npy")
    assert isinstance(mapped, np.memmap) and np.array_equal(mapped, vectors.astype(np.float16))
