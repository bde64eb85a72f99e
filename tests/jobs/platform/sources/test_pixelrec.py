"""PixelRec, with lines as its files have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.platform.errors import JobError

INTERACTIONS = "item_id,user_id,timestamp\ni72138,u209296,1605059546\ni15530,u2444520,1628914341\ni1,,1\n"
VIDEOS = (
    "item_id,view_number,comment_number,thumbup_number,share_number,coin_number,favorite_number,barrage_number,"
    "title,tag,description\n"
    'i192714,799668.0,739.0,8050.0,220.0,84.0,1049.0,510.0,"My boyfriend gave me a turtle, “wow”",Pet Reptiles,'
    "Should I brush it off?\n"
    "i7117,,,,,,,,Only a title,,\n"
    'i8,1.0,1.0,1.0,1.0,1.0,1.0,1.0,"Said ""no""",Comedy,"two\nlines"\n'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A size of the data set, with folders and names as its users have them."""
    for name, text in {"dataset/Pixel200K.csv": INTERACTIONS, "information/Pixel200K.csv": VIDEOS}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_folder(read: Callable[..., Any], folder: Path) -> None:
    events, items, faults = read("pixelrec", data=str(folder))
    assert events == [
        {"user_id": "u209296", "item_id": "i72138", "timestamp": 1605059546},
        {"user_id": "u2444520", "item_id": "i15530", "timestamp": 1628914341},
    ]
    assert [(row["item_id"], row["title"], row["description"], row["category"]) for row in items] == [
        ("i192714", "My boyfriend gave me a turtle, “wow”", "Should I brush it off?", "Pet Reptiles"),
        ("i7117", "Only a title", None, None),
        ("i8", 'Said "no"', "two\nlines", "Comedy"),
    ]
    assert faults == [("Pixel200K.csv", '{"item_id":"i1","timestamp":"1"}', "user_id", "missing")]


def test_nested_sizes_are_not_added_up(read: Callable[..., Any], folder: Path) -> None:
    (folder / "dataset" / "Pixel1M.csv").write_text(INTERACTIONS)
    with pytest.raises(
        JobError, match=r"seen 3 files, 2 of events .*Pixel1M.csv.* and 1 of items .*; allowed: 1 of each"
    ):
        read("pixelrec", data=str(folder))
    files = {"events": str(folder / "dataset" / "Pixel1M.csv"), "items": str(folder / "information")}
    events, items, _ = read("pixelrec", **files)
    assert (len(events), len(items)) == (2, 3)
