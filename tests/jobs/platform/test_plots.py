"""Pictures are drawn of whatever the jobs may hand over, and show it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jobs.platform import plots
from jobs.platform.interest_map import OTHERS, InterestMap, UserOnMap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANKINGS = ("HyMiRec", "champion", "popularity", "co-occurrence", "own repeats")


def drawn(figure: Figure) -> Figure:
    """The figure, after it was drawn in full: a warning of matplotlib is an error."""
    figure.savefig(io.BytesIO(), format="png", dpi=30)
    return figure


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for legend in (*figure.legends, *filter(None, (a.get_legend() for a in figure.axes)))
            for text in legend.get_texts()]  # fmt: skip


def by_history(names: tuple[str, ...], groups: tuple[str, ...]) -> list[dict[str, Any]]:
    interval = {"mean": 0.2, "low": 0.1, "high": 0.4}
    rows = [{"name": name, "recall@50": interval, "recall@200": interval} for name in names]
    return [{"history": group, "users": 1234, "rows": rows} for group in groups]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("names", [RANKINGS, RANKINGS[2:], RANKINGS[:1]], ids=len)
@pytest.mark.parametrize("groups", [("1-4", "5-19", "20-99", "100+"), ("100+",)], ids=len)
def test_recall_by_history_shows_every_ranking_and_group(names: tuple[str, ...], groups: tuple[str, ...]) -> None:
    figure = drawn(plots.recall_by_history(by_history(names, groups)))
    assert labels(figure) == list(names)
    shown = [text.get_text() for text in figure.axes[1].get_xticklabels()]
    assert shown == [f"{group.replace('-', '–')} events\n1,234 users" for group in groups]
    mean, low, high = figure.axes[0].containers[0].lines[0].get_ydata()[0], 0.1, 0.4
    assert mean == 0.2
    assert figure.axes[0].containers[0].lines[2][0].get_segments()[0][:, 1].tolist() == pytest.approx([low, high])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("groups", [("1", "2", "none"), ("none",)], ids=len)
def test_coverage_by_popularity_is_in_percent(groups: tuple[str, ...]) -> None:
    rows = [{"name": name, "places": 0.25, "coverage": 0.5} for name in RANKINGS]
    found = [{"group": group, "items": 41_000, "taken": 0.1, "rows": rows} for group in groups]
    figure = drawn(plots.coverage_by_popularity(found))
    assert labels(figure) == [*RANKINGS, "taken afterwards"]
    assert figure.axes[0].lines[0].get_ydata() == pytest.approx([25] * len(groups))
    assert figure.axes[1].lines[0].get_ydata() == pytest.approx([50] * len(groups))
    assert figure.axes[1].get_xticklabels()[0].get_text() == f"{groups[0]}\n41,000"


@pytest.mark.filterwarnings("error")
def test_phases_of_a_training_follow_one_another() -> None:
    curves = {"light recommender": {1: 9.0, 2: 8.0}, "LLM": {1: 7.0, 3: 6.0}}
    recalls = {"light recommender": (0.1, 0.2), "LLM": (0.2, 0.1)}
    figure = drawn(plots.loss_curves(curves, recalls))
    assert [line.get_xdata().tolist() for line in figure.axes[0].lines if line.get_label() in curves] == [
        [1, 2],
        [3, 5],
    ]
    assert labels(figure) == [*curves, "light recommender (kept)", "LLM (undone)"]
    assert len(drawn(plots.loss_curves({"head": {1: 3.0}})).axes) == 1
    assert labels(drawn(plots.loss_curves({"LLM": {1: 3.0}}, {"LLM": (0.1, 0.1)}))) == ["LLM", "LLM (kept)"]


@pytest.mark.filterwarnings("error")
def test_trend_puts_days_where_they_belong() -> None:
    days = {
        "2020-02-27": {"recall_at_50": 0.1, "users": 40, "seconds/evaluate": 60},
        "2020-03-01": {"recall_at_50": 0.2, "users": 41, "seconds/evaluate": 60, "seconds/publish": 120},
    }
    figure = drawn(plots.trend(days))
    axes = {axis.get_title(loc="left"): axis for axis in figure.axes}
    assert axes["Users with interests"].lines[0].get_xdata().tolist() == [0, 3], "two days are missing"
    assert [bar.get_height() for bar in axes["Minutes by task"].containers[0]] == [0, 2], "the slowest task first"
    assert [bar.get_y() for bar in axes["Minutes by task"].containers[1]] == [0, 2]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("days", [1, 30])
def test_trend_of_one_day_or_many(days: int) -> None:
    tasks = {f"seconds/task_{number}": 60.0 * number for number in range(9)}
    figure = drawn(plots.trend({f"2020-03-{day + 1:02d}": tasks for day in range(days)}))
    named = [text.get_text() for text in figure.axes[-1].get_xticklabels()]
    assert len(named) <= 7 and named[0] == f"03-{days:02d}"
    assert labels(figure)[-6:] == ["task_8", "task_7", "task_6", "task_5", "task_4", "the others"]
    drawn(plots.trend({"2020-03-01": {}}))  # an MLflow that knows the day, and nothing of it


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("users", [0, 1, 3, 4])
@pytest.mark.parametrize("categories", [["a", "b", "c", OTHERS], [OTHERS]], ids=len)
def test_interest_map_has_a_panel_a_user(users: int, categories: list[str]) -> None:
    rng = np.random.default_rng(0)
    people = [UserOnMap(f"u{i}" * 40, 7, rng.normal(size=(5, 2)), rng.normal(size=(3, 2))) for i in range(users)]
    items = rng.normal(size=(40, 2))
    figure = drawn(plots.interest_map(InterestMap(items, categories * (40 // len(categories)), people, True)))
    assert len([axis for axis in figure.axes if axis.axison]) == max(users, 1)
    seen = labels(figure)
    assert ("interests" in seen) == (users > 0)
    assert set(seen) >= ({"a", "b", "c", "other categories"} if len(categories) > 1 else {"items"})


def test_a_dollar_in_a_name_is_a_dollar() -> None:
    """And no formula, which would stop the drawing where it is none."""
    names = ["$1% off $5", "$50 #1 $9", "Under $10_$20"]
    person = UserOnMap("$_$", 7, np.zeros((1, 2)), np.ones((1, 2)))
    figure = drawn(plots.interest_map(InterestMap(np.arange(60.0).reshape(30, 2), names * 10, [person], True)))
    assert {name.replace("$", r"\$") for name in names} <= set(labels(figure))
    assert figure.axes[0].get_title() == r"user \$_\$: 7 events"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("days", [1, 29])
def test_input_drift_shows_what_goes_beyond_its_limit(days: int) -> None:
    statistics = {f"2020-{1 + n // 28:02d}-{n % 28 + 1:02d}": {"rows": 9, "users": 3, "items": 5} for n in range(days)}
    figure = drawn(plots.input_drift(statistics, {"events.rows": 1.5, "events.top_user": -0.1, "events.hour": 0.5}))
    assert labels(figure) == ["events", "users", "distinct items"]
    assert figure.axes[0].get_xticklabels()[0].get_text() == max(statistics)
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == [
        "events.top_user",
        "events.hour",
        "events.rows",
    ]
    bars = figure.axes[1].patches
    assert [bar.get_width() for bar in bars] == [0, 50, 150]
    assert bars[0].get_facecolor() == bars[1].get_facecolor() != bars[2].get_facecolor()
