from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.delete_users import main
from jobs.platform import cli
from jobs.platform.deletions import read_deletions
from jobs.platform.errors import SchemaError, WarehouseError
from jobs.platform.warehouse import Warehouse
from tests.small_model import DAY, table, write_histories


def command(*arguments: str) -> int:
    with pytest.raises(SystemExit) as done:
        cli.run(main, list(arguments))
    return int(done.value.code or 0)


def test_people_are_added_once_from_options_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wh, ids = Warehouse(str(tmp_path / "wh")), tmp_path / "ids.txt"
    ids.write_text("2375\n\n Zoë \n", "utf-8-sig")  # with a byte-order mark, as editors on Windows write it
    assert read_deletions(wh).user_ids == () and read_deletions(wh).fingerprint == ""
    assert command("--warehouse", wh.uri, "--user", "7", "--user", "2375", "--file", str(ids)) == 0
    assert "deletions: 3 people, 3 of them new" in capsys.readouterr().out
    first = read_deletions(wh)
    assert first.user_ids == ("2375", "7", "Zoë") and len(first.fingerprint) == 16
    assert command("--warehouse", wh.uri, "--user", "7", "--user", "8") == 0
    assert "deletions: 4 people, 1 of them new" in capsys.readouterr().out
    assert command("--warehouse", wh.uri, "--user", "7") == 0
    assert read_deletions(wh).user_ids == ("2375", "7", "8", "Zoë")
    assert read_deletions(wh).fingerprint != first.fingerprint


def test_a_request_is_kept_where_ids_cannot_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wh = Warehouse(str(tmp_path / "wh"))
    write_histories(wh, table(4, 9))
    arguments = ("--warehouse", wh.uri, "--user")
    assert command(*arguments, "user-001") == 0
    assert f"of the new ones 1 have a history on {DAY}" in capsys.readouterr().out
    histories = wh.partition("histories", DAY)
    files = sorted((Path(histories.path) / name for name in histories.files), key=str)
    content = {file: file.read_bytes() for file in files}
    for damage in (lambda file: b"?" * len(content[file]), lambda file: b"cut"):
        for file in files:
            file.write_bytes(damage(file))
        before = read_deletions(wh).user_ids
        assert command(*arguments, f"user-00{len(before) + 1}") == 0
        said = capsys.readouterr()
        assert "1 of them new" in said.out and "could not be checked: " in said.out and not said.err
        assert len(read_deletions(wh).user_ids) == len(before) + 1
    assert "seen 3 bytes; allowed: the" in said.out


def test_what_names_nobody_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uri, image = str(tmp_path / "wh"), tmp_path / "image.png"
    image.write_bytes(b"\x89PNG\xff")
    assert command("--warehouse", uri) == 2
    assert "user ids: seen []; allowed: one or more ids, none of them blank" in capsys.readouterr().err
    assert command("--warehouse", uri, "--user", " ") == 2
    assert command("--warehouse", uri, "--file", str(image)) == 2
    assert "allowed: a text file in UTF-8, one user id a line" in capsys.readouterr().err
    assert not list(Path(uri).glob("deletions/*"))


def test_files_of_others_are_read_or_named(tmp_path: Path) -> None:
    wh, folder = Warehouse(str(tmp_path)), tmp_path / "deletions"
    folder.mkdir()
    pq.write_table(pa.table({"user_id": ["b", None, "a"], "asked": [1, 2, 3]}), folder / "legal.parquet")
    assert read_deletions(wh).user_ids == ("a", "b")
    pq.write_table(pa.table({"user_id": [7]}), folder / "numbers.parquet")
    with pytest.raises(
        SchemaError, match=r"table deletions, column user_id: seen type int64 in numbers.parquet; allowed: string"
    ):
        read_deletions(wh)
    (folder / "numbers.parquet").write_bytes(b"PAR1")
    with pytest.raises(WarehouseError, match=r"deletions/numbers\.parquet: seen a file that is not Parquet"):
        read_deletions(wh)
