"""A bar that moves with the files that others write."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from jobs.platform.file_progress import file_progress
from jobs.platform.warehouse import Warehouse


def test_files_are_counted_as_they_come(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown, end = "", time.monotonic() + 10
    with file_progress(Warehouse(str(tmp_path)), "text_vectors/attempt", 3, "texts", seconds=0.01):
        (tmp_path / "text_vectors" / "attempt").mkdir(parents=True)
        for name in ("from-a.parquet", "from-b.parquet", ".from-c.parquet.0123"):  # the last is not finished
            (tmp_path / "text_vectors" / "attempt" / name).write_text("x")
        while "2/3" not in shown and time.monotonic() < end:
            time.sleep(0.01)
            shown += capsys.readouterr().err
        assert "texts" in shown and "2/3" in shown and "3/3" not in shown
    assert "3/3" in capsys.readouterr().err


def test_a_failure_passes_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(RuntimeError, match="worker"),
        file_progress(Warehouse(str(tmp_path)), "text_vectors/attempt", 3, "texts"),
    ):
        raise RuntimeError("worker")
    assert "3/3" not in capsys.readouterr().err
