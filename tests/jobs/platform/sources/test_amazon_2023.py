"""Amazon Reviews 2023, with lines as the data set has them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.platform.errors import JobError

REVIEW = (
    '{"rating": 5.0, "title": "Such a lovely scent", "text": "This spray is really nice.\\"Light\\"", "images": [], '
    '"asin": "B00YQ6X8EO", "parent_asin": "B00YQ6X8E0", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ", '
    '"timestamp": 1588687728923, "helpful_vote": 0, "verified_purchase": true}'
)
META = {
    "main_category": "All Beauty",
    "title": "Howard LC0008 Leather Conditioner, 8-Ounce (4-Pack)",
    "average_rating": 4.8,
    "rating_number": 10,
    "features": ["Cleans", "Softens"],
    "description": ["For leather.", "Smells \u201cgood\u201d"],
    "price": None,
    "images": [{"thumb": "https://m.media-amazon.com/images/I/1.jpg", "variant": "MAIN", "hi_res": None}],
    "videos": [],
    "store": "Howard Products",
    "categories": ["Beauty & Personal Care", "Skin Care"],
    "details": {"Brand": "Howard", "UPC": "1"},
    "parent_asin": "B00YQ6X8E0",
    "bought_together": None,
}
PLAIN = META | {"parent_asin": "B1", "features": [], "description": [], "categories": [], "store": None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The tree of the data set, one file plain and one gzip."""
    (tmp_path / "review_categories").mkdir()
    (tmp_path / "meta_categories").mkdir()
    odd = [
        REVIEW.replace('"AGKHLEW2SOWHNMFQIJGBECAF7INQ"', "null"),
        REVIEW[:70],
        REVIEW.replace("1588687728923", '"yesterday"'),
        REVIEW + REVIEW,  # a newline was lost
    ]
    lines = "\n".join([REVIEW, *odd]) + "\n"
    (tmp_path / "review_categories" / "All_Beauty.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    metas = [json.dumps(META, ensure_ascii=False), json.dumps(PLAIN)]
    (tmp_path / "meta_categories" / "meta_All_Beauty.jsonl").write_text("\n".join(metas), encoding="utf-8")
    return tmp_path


def test_a_category(read: Callable[..., Any], folder: Path) -> None:
    events, items, faults = read("amazon-2023", data=str(folder))
    assert events == [
        {
            "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ",
            "item_id": "B00YQ6X8E0",
            "timestamp": 1588687728,
            "weight": 5.0,
            "event": "review",
        }
    ]
    assert items == [
        {
            "item_id": "B00YQ6X8E0",
            "title": META["title"],
            "description": "Howard Products. Cleans. Softens. For leather.. Smells “good”",
            "category": "Beauty & Personal Care, Skin Care",
        },
        {"item_id": "B1", "title": META["title"], "description": None, "category": "All Beauty"},
    ]
    assert {file for file, *_ in faults} == {"All_Beauty.jsonl.gz"}
    assert sorted((column, reason) for _, _, column, reason in faults) == [
        ("line", "not one JSON object"),
        ("line", "not one JSON object"),
        ("timestamp", "no time"),
        ("user_id", "missing"),
    ]
    assert REVIEW[:70] in {row for _, row, *_ in faults}


def test_files_by_option(read: Callable[..., Any], folder: Path) -> None:
    reviews = str(folder / "review_categories" / "All_Beauty.jsonl.gz")
    events, items, _ = read("amazon-2023", events=reviews)
    assert len(events) == 1 and items is None
    events, items, _ = read("amazon-2023", events=reviews, items=str(folder / "meta_categories"))
    assert len(events) == 1 and len(items) == 2


@pytest.mark.parametrize("given", [{}, {"items": "meta_categories"}, {"data": ".", "events": "review_categories"}])
def test_options_that_do_not_go_together(read: Callable[..., Any], given: dict[str, str]) -> None:
    with pytest.raises(JobError, match=r"--source amazon-2023: seen no files, .*; allowed: --data FOLDER, or --events"):
        read("amazon-2023", **given)


def test_a_folder_without_products(read: Callable[..., Any], folder: Path) -> None:
    with pytest.raises(JobError, match=r"seen 1 files, 1 of events .* and 0 of items .*; allowed: 1 or more of each"):
        read("amazon-2023", data=str(folder / "review_categories"))
