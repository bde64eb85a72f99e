from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.platform import interest_map
from jobs.platform.interest_map import OTHERS, Plane
from jobs.platform.releases import Release
from tests.small_release import publish_day

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture(scope="module")
def release(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Release:
    folder: Path = tmp_path_factory.mktemp("map")
    return publish_day(spark, folder)


def test_map_of_a_release(release: Release) -> None:
    shown = interest_map.of_release(release)
    assert shown.items.shape == (300, 2) and set(shown.categories) == {"grocery", OTHERS}
    assert not shown.by_category, "one category spans no plane"
    assert len(shown.users) == 4 and [u.n_events for u in shown.users] == sorted(u.n_events for u in shown.users)
    made = release.recommender
    for user in shown.users:
        found = made.interests([user.user_id])
        assert len(user.history) == len(found.seen[1]) and user.interests.shape == (3, 2)
    again = interest_map.of_release(release)
    assert np.array_equal(again.items, shown.items) and np.array_equal(again.users[0].history, shown.users[0].history)


def test_map_shows_what_people_take(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = release.table("interests", ["seen"])["seen"].to_pylist()
    monkeypatch.setattr(interest_map, "ITEMS", 20)
    whole = np.bincount(np.concatenate(seen), minlength=300)
    drawn = interest_map._times_taken(release, 300)
    assert len(interest_map.of_release(release).items) == 20
    assert 0 < drawn.sum() <= whole.sum() and (drawn <= whole).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 12))
def test_any_vectors_have_a_plane(seed: int, dim: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, dim)).round()
    plane = Plane.fit(vectors, [str(i % 4) for i in range(n)])
    points = plane.project(vectors)
    assert points.shape == (n, 2) and np.isfinite(points).all()
    assert (np.linalg.norm(points, axis=1) <= 1 + 1e-9).all(), "directions, seen on a plane"


def test_categories_are_drawn_apart_where_there_are_some() -> None:
    """Noise is wider than what separates the categories; what all have in common is wider still."""
    rng = np.random.default_rng(0)
    names = np.repeat(["a", "b", "c"], 200)
    centres = {"a": [3, 0], "b": [-3, 0], "c": [0, 3]}
    noise = rng.normal(size=(600, 6)) * [0.5, 0.5, 9, 9, 0, 0]
    vectors = noise + [[*centres[name], 0, 0, 100, 0] for name in names]
    for groups, (low, high) in ((names.tolist(), (0.95, 1)), ([OTHERS] * 600, (0, 0.1))):
        inside = np.linalg.norm(Plane.fit(vectors, groups).axes[:2], axis=0)
        assert (low <= inside).all() and (inside <= high + 1e-9).all(), groups[0]
