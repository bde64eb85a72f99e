"""Recommendations from releases that the real jobs made."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from hymirec_model.errors import HymirecError
from hymirec_model.retrieval import top_items
from hymirec_model.tastes import tastes
from jobs.platform import columns
from jobs.platform.given_events import Events
from jobs.platform.manifest import ReleaseError
from jobs.platform.recommend import Recommended
from jobs.platform.releases import Release
from tests.small_model import table
from tests.small_release import publish_day

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

USERS, ITEMS = 40, 300
# Of scores: what float16 rounds off an interest (2e-4 of a cosine, times a scale of about 20)
TOLERANCE = 5e-3


@pytest.fixture(scope="module", params=[("lse", "flat"), ("calibrated", "ivf-pq")], ids=lambda param: param[1])
def release(request: pytest.FixtureRequest, spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """By the index that keeps everything, and by the one that keeps least and so has to fetch most."""
    merge, kind = request.param
    return publish_day(spark, tmp_path_factory.mktemp(merge), merge, (kind,))


@pytest.fixture(scope="module")
def histories() -> dict[str, Events]:
    """The users' events, which the release's interests were made from."""
    return {
        row["user_id"]: [(f"item-{i}", t) for i, t in zip(row["item_indices"], row["timestamps"], strict=True)]
        for row in table(USERS, ITEMS).to_pylist()
    }


def ids(found: list[Recommended]) -> list[str]:
    return [place.item_id for place in found]


def assert_same(first: list[Recommended], second: list[Recommended]) -> None:
    """Equal lists, but for the order of scores that rounding may swap."""
    assert len(first) == len(second)
    np.testing.assert_allclose([p.score for p in first], [p.score for p in second], atol=TOLERANCE)
    scores = {place.item_id: place.score for place in second}
    for place in first:
        assert abs(scores.get(place.item_id, second[-1].score) - place.score) <= TOLERANCE


def test_lists_are_those_of_exact_retrieval(release: Release, histories: dict[str, Events]) -> None:
    rows = release.table("interests").sort_by("user_id")
    interests = columns.matrix(rows["interests"].combine_chunks(), "interests", "interests").astype(np.float32)
    weights = columns.matrix(rows["weights"].combine_chunks(), "interests", "weights").copy()
    vectors = np.load(release.local() / "items" / "vectors.npy").astype(np.float32)
    seen = [sorted({int(item[5:]) for item, _ in histories[user]}) for user in rows["user_id"].to_pylist()]
    exclude = (np.cumsum([0, *map(len, seen)]), np.concatenate(seen))
    retrieval, shift = release.manifest["retrieval"], np.load(release.local() / "index" / "shift.npy")
    assert shift.any()
    items, scores = top_items(
        torch.from_numpy(interests.reshape(USERS, 3, -1)), torch.from_numpy(weights), torch.from_numpy(vectors),
        30, retrieval["merge"], retrieval["scale"], exclude=exclude, shift=torch.from_numpy(shift),
    )  # fmt: skip
    for row, user in enumerate(rows["user_id"].to_pylist()):
        found = release.recommend(user, 30)
        assert ids(found) == [f"item-{item}" for item in items[row].tolist()]
        assert [place.title for place in found] == [f"title {item}" for item in items[row].tolist()]
        np.testing.assert_allclose([place.score for place in found], scores[row].numpy(), atol=1e-4)


def test_seen_items_are_left_out_unless_wanted(release: Release, histories: dict[str, Events]) -> None:
    again = 0
    for user, events in histories.items():
        seen = {item for item, _ in events}
        assert not seen & set(ids(release.recommend(user, 50)))
        assert not seen & set(ids(release.recommend_events(events, 50, diversity=0.5)))
        again += len(seen & set(ids(release.recommend(user, exclude_seen=False))))
    assert again > USERS


@pytest.mark.parametrize("options", [{}, {"n": 7, "exclude_seen": False}, {"diversity": 0.6}])
def test_a_batch_gives_everyone_the_list_they_get_alone(
    release: Release, histories: dict[str, Events], options: dict[str, Any]
) -> None:
    users = [*histories, "user-003"]  # somebody twice
    together = release.recommend_batch(users, **options)
    assert together == [release.recommend(user, **options) for user in users]
    batch = [histories[user] for user in users]
    for one, events in zip(release.recommend_events_batch(batch, **options), batch, strict=True):
        assert_same(one, release.recommend_events(events, **options))


def test_a_users_events_give_the_users_list(release: Release, histories: dict[str, Events]) -> None:
    mixed = np.random.default_rng(0)
    for user, events in histories.items():
        given = [events[place] for place in mixed.permutation(len(events))]
        if len({time for _, time in events}) == len(events):  # else the order of equal times counts
            assert release.recommend_events(given) == release.recommend(user)
        assert release.recommend_events(events) == release.recommend(user)


def test_only_the_newest_events_count_as_in_the_release(release: Release, histories: dict[str, Events]) -> None:
    profile = release.manifest["profile"] | {"histories": {"max_length": 5}}
    short = dataclasses.replace(release, manifest=release.manifest | {"profile": profile})
    events = max(histories.values(), key=len)
    assert short.recommend_events(events) == release.recommend_events(events[-5:])


def test_time_passes_with_the_newest_event_or_as_told(release: Release, histories: dict[str, Events]) -> None:
    events, day, year = histories["user-005"], 86_400, 365 * 86_400
    later = [(item, time + year) for item, time in events]
    assert release.recommend_events(later) == release.recommend_events(events)
    evening = (events[-1][1] // day + 1) * day
    assert release.recommend_events(events) == release.recommend_events(events, now=evening)
    assert release.recommend_events(later, now=evening + year) == release.recommend_events(events)
    aged = release.recommend_events(events, now=evening + year)
    assert [place.score for place in aged] != [place.score for place in release.recommend_events(events)]


def test_diversity_makes_lists_less_alike(release: Release, histories: dict[str, Events]) -> None:
    vectors = tastes(torch.from_numpy(release.recommender.vectors.astype(np.float32))).numpy()

    def likeness(diversity: float) -> float:
        lists = release.recommend_batch(list(histories), 10, diversity=diversity)
        rows = vectors[[[int(place.item_id[5:]) for place in found] for found in lists]]
        return float(np.einsum("uid,ujd->uij", rows, rows).mean())

    found = [likeness(diversity) for diversity in (0.0, 0.3, 0.7, 1.0)]
    assert found == sorted(found, reverse=True) and found[0] > found[-1] + 0.05
    plain, diverse = (release.recommend("user-007", 10, diversity=diversity) for diversity in (0.0, 0.7))
    assert plain[0] == diverse[0]


def test_lists_end_where_the_catalogue_does(release: Release, histories: dict[str, Events]) -> None:
    seen = {item for item, _ in histories["user-001"]}
    for found in (release.recommend("user-001", 10_000), release.recommend("user-001", ITEMS, diversity=0.2)):
        assert sorted(ids(found)) == sorted({f"item-{item}" for item in range(ITEMS)} - seen)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda r: r.recommend("x"),
            r"user: seen 'x'; allowed: one of the 40 users .*give their events to rec",
        ),
        (lambda r: r.recommend_batch(["user-001", "x", "y"]), "user: seen 'x' and 1 more; allowed"),
        (lambda r: r.recommend(2375), "user_id: seen 2375; allowed: a string"),
        (lambda r: r.recommend_batch("user-001"), "user_ids: seen 'user-001'; allowed: a sequence"),
        (lambda r: r.recommend_batch([]), "user_ids: seen none"),
        (lambda r: r.recommend("user-001", 0), "n: seen 0; allowed: a whole number of items, 1 or more"),
        (lambda r: r.recommend("user-001", 2.5), "n: seen 2.5"),
        (lambda r: r.recommend("user-001", diversity=-0.1), "diversity: seen -0.1; allowed: 0"),
        (lambda r: r.recommend("user-001", diversity=float("nan")), "diversity: seen nan"),
        (lambda r: r.recommend_events([]), r"events: seen \[\]; allowed: one"),
        (lambda r: r.recommend_events_batch([]), "events: seen those of no user"),
        (lambda r: r.recommend_events([("item-1", float("nan"))]), "events: seen time nan"),
        (lambda r: r.recommend_events([("new", 5.0), ("item-1", 6.0)]), "seen item_id 'new'; allowed: .*skip_unknown"),
        (lambda r: r.recommend_events([("new", 5.0)], skip_unknown=True), "none of an item that the release holds"),
    ],
)
def test_bad_questions_are_named(release: Release, call: Any, message: str) -> None:
    with pytest.raises(HymirecError, match=message):
        call(release)


def test_opening_loads_nothing_heavy_and_a_list_by_users_no_model(release: Release, repository: Path) -> None:
    code = f"""
import sys
from jobs.platform.releases import Release
heavy = {{"torch", "faiss", "transformers", "pyspark", "mlflow", "airflow"}}
release = Release.open({release.warehouse.uri!r})
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert len(release.recommend("user-001")) == 20
assert heavy & set(sys.modules) == {{"torch", "faiss"}}, heavy & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert isinstance(release.recommender.vectors, np.memmap)


def test_snippets_of_the_readme_run(
    release: Release,
    repository: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    readme = (repository / "README.md").read_text().replace('"2375"', '"user-005"')
    readme = re.sub(r'\("\d+", 1512', '("item-3", 1512', readme)
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "warehouse").symlink_to(release.warehouse.uri)
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"^```python\n(.*?)^```$", readme, re.M | re.S)
    by_hand, by_us = (_output(snippet, capsys) for snippet in snippets)
    assert [line.split()[1] for line in by_hand] == ids(release.recommend("user-005", exclude_seen=False))
    assert [line.split()[1] for line in by_us[:-1]] == ids(release.recommend("user-005", 10, diversity=0.3))
    assert by_us[-1].count("Recommended(item_id=") == 10


def _output(snippet: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    exec(compile(snippet, "README.md", "exec"), {})
    return capsys.readouterr().out.splitlines()


def test_unknown_users_are_answered_without_a_read_of_all(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service asks for them often: those who came since the release."""
    monkeypatch.delattr(Release, "table")
    with pytest.raises(ReleaseError, match=r"seen 'x'; allowed: one of the 40 users .*such as user-\d{3}, user-\d{3}"):
        release.recommend("x")
