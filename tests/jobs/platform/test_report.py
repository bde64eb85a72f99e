"""The report of a refresh, made of a release that the real jobs built."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobs.platform import explain, report
from jobs.platform.gate import Check, Verdict
from jobs.platform.releases import Release
from tests.small_release import publish_day

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PASSED = Verdict((Check("recall@50", 0.3, "at least 0.2000", True),))
REFUSED = Verdict((*PASSED.checks, Check("users", 36.0, "at least 38.0000", False)))


class Page(HTMLParser):
    """What a reader of the page meets: its text, its tables, and whatever it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.outside, self.open = "", [], []
        self.tables: list[dict[str, int]] = []
        self.feed(html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br", "img"):
            self.open.append(tag)
        names = dict(attrs)
        self.outside += [(tag, names[name]) for name in ("src", "href", "srcset", "data") if name in names]
        if tag in ("script", "link", "img", "iframe"):
            self.outside.append((tag, None))
        if tag == "table":
            self.tables.append({"caption": 0, "headers": 0, "without scope": 0})
        elif tag == "caption":
            self.tables[-1]["caption"] += 1
        elif tag == "th":
            self.tables[-1]["headers"] += 1
            self.tables[-1]["without scope"] += "scope" not in names

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


@pytest.fixture(scope="module")
def release(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Release:
    return publish_day(spark, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def contents(release: Release) -> report.Contents:
    return report.collect(
        release.warehouse,
        release.ds,
        "manual",
        state="CURRENT",
        verdict=PASSED,
        evaluation=release.evaluation(),
        choice=release.manifest["model"],
        release=release,
        parent=None,
        version="1",
    )


def test_publish_wrote_it(release: Release) -> None:
    page = Page((Path(release.warehouse.uri) / "reports" / f"{release.ds}.html").read_text())
    assert f"The gate passed. Release {release.id} : CURRENT." in page.text
    assert "this is the first release" in page.text


def test_it_loads_nothing_and_its_tables_can_be_read_aloud(contents: report.Contents) -> None:
    html = report.render(contents)
    page = Page(html)
    assert page.outside == [] and page.open == [] and "url(" not in html
    assert len(page.tables) == 4 + 3 * 10
    assert all(table["caption"] == 1 and table["headers"] > 1 for table in page.tables)
    assert not any(table["without scope"] for table in page.tables)


def test_figures_are_those_of_the_evaluation(contents: report.Contents) -> None:
    page = Page(report.render(contents))
    for row in contents.evaluation["rows"]:
        assert f"{row['name']} {row['recall@50']['mean']:.3f} " in page.text
    for group in contents.evaluation["by_history"]:
        assert f"{group['history']} {group['users']:,} " in page.text


def test_ten_people_from_few_events_to_many_say_why(contents: report.Contents, release: Release) -> None:
    sizes = [person.n_events for person in contents.people]
    assert len({person.user_id for person in contents.people}) == 10 and sizes == sorted(sizes)
    person = contents.people[0]
    user = release.recommender.interests([person.user_id]).vectors[0]
    ids = release.recommender.names["item_id"].to_pylist()
    for item in person.retrieved:
        cosines = release.recommender.vectors[ids.index(item.item_id)].astype("f4") @ user.T
        assert item.interest == cosines.argmax() + 1 and item.cosine == pytest.approx(cosines.max(), abs=1e-3)


def test_a_refusal_gives_its_reasons_and_no_people(contents: report.Contents) -> None:
    refused = replace(
        contents, verdict=REFUSED, state="nothing published", release=None, people=[], no_people="no release was made"
    )
    page = Page(report.render(refused))
    assert f"The gate refused. {REFUSED.reasons}. nothing published." in page.text
    assert "✗ no" in page.text and "No people None are shown: no release was made." in page.text


def test_a_release_before_is_set_beside_it(contents: report.Contents, release: Release) -> None:
    rows = {row["name"]: row for row in report.changes(release, release)}
    assert rows["users"] == {"name": "users", "before": "40", "now": "40", "change": "+0"}
    assert rows["recommender"]["change"] == "the same" and rows["size in MB"]["change"] == "+0.0"
    assert "Beside the release before" in Page(report.render(replace(contents, parent=release))).text


def test_titles_cannot_break_the_page(contents: report.Contents) -> None:
    hostile = explain.Explained("<b>", 1, [("2020-01-01", "<script>alert(1)</script>")], [[(0.5, "a & b")]], [])
    html = report.render(replace(contents, people=[hostile]))
    assert "<script" not in html and Page(html).open == []
    assert "<script>alert(1)</script>" in Page(html).text
