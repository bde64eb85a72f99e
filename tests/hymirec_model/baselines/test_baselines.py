from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import hymirec_model.baselines as baselines
from hymirec_model.baselines import Baseline, CoOccurrence, OwnRepeats, Popularity, rank
from hymirec_model.errors import InputError
from hymirec_model.histories import Histories

DAY, N_ITEMS, NOW = 86_400, 40, 100 * 86_400


def histories(events: list[list[tuple[int, int]]]) -> Histories:
    """One list of (item, time) a user."""
    flat = [event for user in events for event in user]
    return Histories(
        user_ids=np.array([f"u{i}" for i in range(len(events))], object),
        offsets=np.cumsum([0, *map(len, events)]).astype(np.int64),
        items=np.array([item for item, _ in flat], np.int64),
        timestamps=np.array([time for _, time in flat], np.int64),
    )


@pytest.fixture
def events() -> list[list[tuple[int, int]]]:
    rng = np.random.default_rng(0)
    skewed = 1 / np.arange(1, N_ITEMS - 4)  # the last items are never bought
    users = []
    for _ in range(30):
        times = np.sort(rng.integers(0, NOW, rng.integers(1, 60)) // DAY * DAY + 3600)
        users.append([(int(rng.choice(len(skewed), p=skewed / skewed.sum())), int(time)) for time in times])
    return users


def test_popularity_counts_recent_users_then_all_users(events: list[list[tuple[int, int]]]) -> None:
    scores = Popularity(days=28).fit(histories(events), N_ITEMS, NOW).scores(histories(events[:2]))
    recent = [
        len({u for u, e in enumerate(events) for i, t in e if i == item and t >= NOW - 28 * DAY})
        for item in range(N_ITEMS)
    ]
    ever = [len({u for u, e in enumerate(events) for i, _ in e if i == item}) for item in range(N_ITEMS)]
    wanted = sorted(zip(recent, ever, strict=True))
    order = np.argsort(scores[0], kind="stable")
    assert [(recent[i], ever[i]) for i in order] == wanted
    assert np.array_equal(scores[0], scores[1]) and scores.shape == (2, N_ITEMS)


def test_own_repeats_counts_own_events_then_popularity(events: list[list[tuple[int, int]]]) -> None:
    everyone = histories(events)
    popular = Popularity().fit(everyone, N_ITEMS, NOW).scores(everyone)[0]
    scores = OwnRepeats().fit(everyone, N_ITEMS, NOW).scores(everyone)
    for user, mine in enumerate(events):
        own = Counter(item for item, _ in mine)
        keys = [(own[item], popular[item]) for item in range(N_ITEMS)]
        assert [keys[i] for i in np.argsort(scores[user], kind="stable")] == sorted(keys)


def test_co_occurrence_is_the_cosine_of_baskets(events: list[list[tuple[int, int]]]) -> None:
    everyone = histories(events)
    baskets: dict[int, set[tuple[int, int]]] = {item: set() for item in range(N_ITEMS)}
    for user, mine in enumerate(events):
        for item, time in mine:
            baskets[item].add((user, time // DAY))
    cosine = np.zeros((N_ITEMS, N_ITEMS))
    for a in range(N_ITEMS):
        for b in range(N_ITEMS):
            if baskets[a] and baskets[b]:
                cosine[a, b] = len(baskets[a] & baskets[b]) / np.sqrt(len(baskets[a]) * len(baskets[b]))
    wanted = np.array([sum(cosine[item] for item, _ in mine[-10:]) for mine in events])
    scores = CoOccurrence(events=10).fit(everyone, N_ITEMS, NOW).scores(everyone)
    np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [Popularity, OwnRepeats, CoOccurrence])
@pytest.mark.parametrize("mask_seen", [False, True])
def test_rank_is_the_full_ranking_in_any_chunks(
    kind: type[Baseline],
    mask_seen: bool,
    events: list[list[tuple[int, int]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everyone = histories(events)
    baseline = kind().fit(everyone, N_ITEMS, NOW)
    place = np.argsort(np.random.default_rng(3).permutation(N_ITEMS))
    scores = baseline.scores(everyone)
    ranked = rank(baseline, everyone, 12, mask_seen=mask_seen, seed=3)
    for user, mine in enumerate(events):
        allowed = set(range(N_ITEMS)) - ({item for item, _ in mine} if mask_seen else set())
        wanted = sorted(allowed, key=lambda item: (-scores[user, item], place[item]))[:12]
        assert ranked[user].tolist() == wanted
    monkeypatch.setattr(baselines, "CELLS", 3 * N_ITEMS)
    assert np.array_equal(ranked, rank(baseline, everyone, 12, mask_seen=mask_seen, seed=3))


def test_short_catalogue_leaves_places_unused() -> None:
    everyone = histories([[(0, 0), (1, 0)], [(2, DAY)]])
    baseline = Popularity().fit(everyone, 3, DAY)
    assert (rank(baseline, everyone, 5)[:, 3:] == -1).all()
    masked = rank(baseline, everyone, 5, mask_seen=True)
    assert masked[0].tolist() == [2, -1, -1, -1, -1]
    assert set(masked[1].tolist()) == {0, 1, -1}


def test_nobody_and_nothing() -> None:
    empty = histories([[]])
    for kind in (Popularity, OwnRepeats, CoOccurrence):
        baseline = kind().fit(empty, 4, 0)
        assert sorted(rank(baseline, empty, 4)[0].tolist()) == [0, 1, 2, 3]
        assert rank(baseline, empty.of_users(np.empty(0, np.int64)), 4).shape == (0, 4)
    with pytest.raises(InputError, match="n: got 0"):
        rank(baseline, empty, 0)
