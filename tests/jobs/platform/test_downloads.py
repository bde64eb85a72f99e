"""What is kept of a remote warehouse on this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from jobs.platform.downloads import KEEP_DAYS
from tests.jobs.platform.test_warehouse import remote


def test_folders_that_nobody_asks_for_go_with_the_next_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYMIREC_CACHE", str(tmp_path / "cache"))
    wh = remote(tmp_path / "store")
    names = ["releases/2024-01-01-0a", "releases/2024-01-02-0b", "encoder/ds=2024-01-01/a", "encoder/ds=2024-01-02/b"]
    for name in (*names, "releases/2024-01-03-0c"):
        wh.storage.filesystem.create_dir(wh.storage.path(name), recursive=True)
        wh.storage.replace(f"{name}/file", b"x")
    folders = {name: wh.local_folder(name) for name in names}
    ago = time.time() - (KEEP_DAYS + 1) * 86400
    for folder in folders.values():
        os.utime(folder, (ago, ago))
    used = names[1::2]
    for name in used:
        assert wh.local_folder(name) == folders[name]
    wh.local_folder("releases/2024-01-03-0c")
    assert [name for name in names if folders[name].exists()] == used
    assert (wh.local_folder(names[0]) / "file").read_bytes() == b"x", "it can be had again"
