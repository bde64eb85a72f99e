"""The logs' cuts, the peers and the checks of bench-quality, on a small made log."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import LlamaConfig, LlamaModel

from benchmarks import hymirec_forms, quality, rectools_peer
from benchmarks.hymirec_forms import Form
from benchmarks.quality_data import Log, load
from benchmarks.sequence_peers import ComiRec, SASRec, SequenceModel
from hymirec_model import metrics
from hymirec_model.baselines import Popularity, rank
from hymirec_model.histories import Batch, Histories, Ints, window_batch
from hymirec_model.hymirec import HyMiRec
from hymirec_model.popularity_shift import Shift

NAME, ITEMS, USERS = "amazon-beauty-2014", 40, 60  # the last 3 events of users with 8 or more
BY_TIME, AGAIN, DAY = "amazon-toys-2014", "online-retail", 86_400


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Users go round a ring of items; some have few events, and every second timestamp is that of the event before."""
    monkeypatch.setenv("HYMIREC_STATE", str(tmp_path / "state"))
    written(
        tmp_path,
        NAME,
        [
            (user, (user + step) % ITEMS, step // 2 * 60)
            for user in range(USERS)
            for step in range(5 if user % 10 == 0 else 20)
        ],
    )
    return tmp_path


def written(folder: Path, name: str, events: list[tuple[int, int, int]]) -> None:
    """Events of (user, item, seconds), each user's in order, as a log of this name."""
    rows = [
        {"user_id": f"u{user:02d}", "item_id": f"i{item}", "timestamp": stamp, "seq_rt": place}
        for place, (user, item, stamp) in enumerate(events)
    ]
    (folder / name).mkdir()
    order = np.random.default_rng(1).permutation(len(rows))  # files promise no order
    pq.write_table(pa.Table.from_pylist([rows[place] for place in order]), folder / name / "interactions.parquet")
    ids = [f"i{number}" for number in range(ITEMS)]
    pq.write_table(pa.table({"item_id": ids, "title": [f"title {i}" for i in ids]}), folder / name / "items.parquet")
    kept = folder / "state" / "cache" / "benchmarks"
    kept.mkdir(parents=True, exist_ok=True)
    np.save(kept / f"{name}-items-minilm.npy", np.random.default_rng(0).normal(size=(ITEMS, 12)).astype(np.float32))


@pytest.fixture
def log(folder: Path) -> Log:
    return load(NAME, folder, validation=False)  # type: ignore[arg-type]


def events(histories: object, user: int) -> list[int]:
    offsets = histories.offsets  # type: ignore[attr-defined]
    return list(histories.items[offsets[user] : offsets[user + 1]])  # type: ignore[attr-defined]


def test_each_task_holds_out_the_end_and_training_sees_none_of_it(log: Log) -> None:
    assert len(log.tasks["window"].past) == USERS - 6 and len(log.tasks["next"].past) == USERS
    for place, user in enumerate(u for u in range(USERS) if u % 10):
        assert len(events(log.tasks["window"].past, place)) == 17
        assert events(log.train, user) == events(log.tasks["window"].past, place)
        low, high = log.tasks["window"].relevant[0][place : place + 2]
        held = set(log.tasks["window"].relevant[1][low:high])
        assert len(held) == 3 and not held & set(events(log.train, user))
        assert log.tasks["next"].relevant[1][user] in held
        assert len(events(log.tasks["next"].past, user)) == 19
    assert len(events(log.train, 0)) == 4 and len(events(log.tasks["next"].past, 0)) == 4


def test_ties_are_broken_so_that_training_may_cut_where_the_tasks_do(log: Log) -> None:
    for user in range(USERS):
        stamps = log.train.timestamps[log.train.offsets[user] : log.train.offsets[user + 1]]
        assert (np.diff(stamps) > 0).all() and stamps[0] == 0


def test_by_time_what_was_taken_together_stays_together(tmp_path: Path) -> None:
    rows = [(user, (user + step) % ITEMS, step // 2 * 86_400) for user in range(USERS) for step in range(20)]
    written(tmp_path, BY_TIME, rows)
    log = load(BY_TIME, tmp_path, validation=False, by_time=True)  # type: ignore[arg-type]
    assert len(log.train.items) == USERS * 16 and not (log.train.timestamps % 86_400).any()


def test_newcomers_are_those_who_come_when_the_log_ends(log: Log, tmp_path: Path) -> None:
    assert len(log.newcomers[1]) == USERS - 6, "the others' few events are long past"
    written(
        tmp_path, BY_TIME, [(user, (user + step) % ITEMS, 60 * user + step) for user in range(USERS) for step in (0, 1)]
    )
    log = load(BY_TIME, tmp_path, validation=False)  # type: ignore[arg-type]
    late = log.train.timestamps + 1 >= np.quantile(log.train.timestamps, 0.9)
    taken = log.tasks["next"].relevant[1]  # one item a user
    assert list(log.newcomers[1]) == list(taken[late]) and 0 < late.sum() < USERS
    log = replace(log, tasks={"next": log.tasks["next"]})
    for item in (taken[late][0], taken[~late][0]):
        alone = np.append(item, np.full(199, -1))
        run = quality.measure(log, lambda past, alone=alone: np.tile(alone, (len(past), 1)), 0.0)  # type: ignore[misc]
        assert run.newcomer == pytest.approx((taken[late] == item).mean())


def test_validation_never_sees_a_test_event(folder: Path, log: Log) -> None:
    earlier = load(NAME, folder, validation=True)  # type: ignore[arg-type]
    for user in range(USERS):
        known, test_known = events(earlier.tasks["next"].past, user), events(log.train, user)
        low, high = earlier.tasks["next"].relevant[0][user : user + 2]
        assert [*known, *earlier.tasks["next"].relevant[1][low:high]] == test_known


@pytest.fixture
def days(folder: Path) -> Path:
    """Two logs with the same events of 100 days: users go round a ring of 30 items, others come, go and come again."""
    rows = [(user, (user + day // 4) % 30, day * DAY) for user in range(40) for day in range(user % 4, 100, 4)]
    rows += [(user, 39, (86 + user % 4) * DAY + 60) for user in range(20)]  # what has become popular
    rows += [(40, 32, DAY), (40, 33, 2 * DAY)]
    rows += [(41, 34, 10 * DAY), (41, 35, 91 * DAY), (41, 35, 91 * DAY), (41, 34, 92 * DAY), (41, 36, 97 * DAY)]
    rows += [(42, 34, 3 * DAY), (42, 34, 92 * DAY)]
    rows += [(43, 37, 96 * DAY), (43, 38, 99 * DAY)]
    for name in (BY_TIME, AGAIN):
        written(folder, name, sorted(rows, key=lambda row: row[2]))
    return folder


def names(items: object) -> list[int]:
    """Numbers in a log → those in the files."""
    return list(np.random.default_rng(0).permutation(ITEMS)[items])  # type: ignore[call-overload]


@pytest.mark.parametrize("validation, first", [(False, 90), (True, 82)])
def test_by_time_training_ends_where_the_week_begins(days: Path, validation: bool, first: int) -> None:
    log = load(BY_TIME, days, validation=validation, by_time=True)  # type: ignore[arg-type]
    assert log.cut == log.now == first * DAY and list(log.tasks) == ["week"]
    assert log.train.timestamps.max() < first * DAY
    past, (offsets, items) = log.tasks["week"].past, log.tasks["week"].relevant
    assert list(past.user_ids[:40]) == [f"u{user:02d}" for user in range(40)]
    for user in range(40):
        assert events(past, user) == events(log.train, user)
        of_week = {(user + day // 4) % 30 for day in range(first, first + 7) if day % 4 == user % 4}
        of_week |= {39} if user < 20 and first <= 86 + user % 4 < first + 7 else set()
        assert set(names(items[offsets[user] : offsets[user + 1]])) == of_week


def test_the_week_asks_for_what_is_new_but_where_people_buy_again(days: Path) -> None:
    for name, wanted in ((BY_TIME, {"u41": {35}}), (AGAIN, {"u41": {34, 35}, "u42": {34}})):
        log = load(name, days, validation=False, by_time=True)  # type: ignore[arg-type]
        past, (offsets, items) = log.tasks["week"].past, log.tasks["week"].relevant
        found = {user: set(names(items[offsets[i] : offsets[i + 1]])) for i, user in enumerate(past.user_ids)}
        assert {user: of_week for user, of_week in found.items() if user >= "u40"} == wanted
        assert names(log.newcomers[1]) == [37] and list(log.newcomers[0]) == [0, 1]


def test_item_numbers_do_not_follow_the_file(log: Log) -> None:
    assert log.items == ITEMS
    first = np.unique(log.train.items, return_index=True)[1]
    assert abs(np.corrcoef(np.arange(ITEMS), first)[0, 1]) < 0.6


@pytest.mark.parametrize("kind", [SASRec, ComiRec])
def test_peers_learn(kind: type[SequenceModel], log: Log) -> None:
    model = kind(log, 16, 10, 0.1, 0).fit(log, seconds=4, seed=0)  # type: ignore[call-arg, arg-type]
    found = model.rank(log.tasks["next"].past, mask_seen=True)
    assert found.shape == (USERS, ITEMS)
    for user in range(0, USERS, 7):
        assert not set(found[user]) & set(events(log.tasks["next"].past, user))
    mine = metrics.recall_at(found, log.tasks["next"].relevant, 3).mean()
    popular = Popularity().fit(log.train, ITEMS, int(log.train.timestamps.max()) + 1)
    theirs = metrics.recall_at(
        rank(popular, log.tasks["next"].past, 200, mask_seen=True), log.tasks["next"].relevant, 3
    ).mean()
    assert mine > theirs + 0.3
    model.unknown[3] = True
    assert 3 in found and 3 not in model.rank(log.tasks["next"].past, mask_seen=True), "what training never saw"


def test_the_peer_from_outside_learns_in_its_own_environment(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="make bench-quality"):
        rectools_peer.fit(log, 16, 10, 0.1, seconds=1, seed=0)
    install = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--python", sys.executable]
    packages = ["--target", tmp_path / "state" / "rectools", "--no-deps", "-r", "benchmarks/rectools.txt"]
    subprocess.run([*install, *packages], check=True)
    ranker = rectools_peer.fit(log, 16, 10, 0.1, seconds=3, seed=0)
    past, relevant = log.tasks["next"].past, log.tasks["next"].relevant
    found = ranker(past)
    assert len(found) == USERS
    for user in range(0, USERS, 7):
        known = set(events(past, user))
        listed = [item for item in found[user] if item >= 0]
        assert len(set(listed)) == len(listed) >= 3 and not known & set(listed)
    assert metrics.recall_at(found, relevant, 3).mean() > 0.6
    assert (ranker(log.train) == -1).all(), "lists are known for the tasks' histories alone"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forms of a size for a catalogue of ITEMS."""
    llama = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=4)
    LlamaModel(llama).save_pretrained(tmp_path / "llama")
    monkeypatch.setattr(hymirec_forms, "resolve", lambda *_: str(tmp_path / "llama"))
    monkeypatch.setattr(hymirec_forms, "LIST", ITEMS)
    monkeypatch.setattr(hymirec_forms, "SPACE", replace(hymirec_forms.SPACE, dim=16))
    monkeypatch.setattr(hymirec_forms, "BOOK", replace(hymirec_forms.BOOK, layers=4, size=16))


def test_forms_learn(log: Log, tiny: None) -> None:
    trainer = hymirec_forms.Trainer(log, window=3, seconds=2, seed=0)
    for title, form in (hymirec_forms.FORMS | hymirec_forms.ONCE).items():
        found = trainer.fit(form)(log.tasks["next"].past)
        assert found.shape == (USERS, ITEMS)
        for user in range(0, USERS, 7):
            assert not set(found[user]) & set(events(log.tasks["next"].past, user))
        if form.stage_1 != hymirec_forms.LLM_ALONE:  # which takes longer to learn
            assert metrics.recall_at(found, log.tasks["next"].relevant, 3).mean() > 0.8, title


def test_time_reaches_the_lists_in_its_protocol_alone(days: Path, tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    half_lives, ages = [], []

    def spied(train: Callable[..., None]) -> Callable[..., None]:
        def train_and_tell(model: HyMiRec, *arguments: Any, **named: Any) -> None:
            half_lives.extend(a.half_life_days for a in arguments if hasattr(a, "half_life_days"))
            train(model, *arguments, **named)
            if isinstance(model, HyMiRec):
                model.set_shift(Shift(days=7, strength=1))

        return train_and_tell

    def batch(past: Histories, users: Ints, ends: Ints, now: Ints, *rest: int) -> Batch:
        ages.append(now - past.timestamps[ends - 1])
        return window_batch(past, users, ends, now, *rest)

    monkeypatch.setattr(hymirec_forms, "train_item_space", spied(hymirec_forms.train_item_space))
    monkeypatch.setattr(hymirec_forms, "train_recommender", spied(hymirec_forms.train_recommender))
    monkeypatch.setattr(hymirec_forms, "window_batch", batch)

    def place_of_popular(form: Form, by_time: bool) -> float:
        """Mean place of the item that became popular, in lists of those who have not had it."""
        log = load(BY_TIME, days, validation=False, by_time=by_time)  # type: ignore[arg-type]
        past = log.train.of_users(np.arange(20, 40))
        half_lives.clear()
        ages.clear()
        found = hymirec_forms.Trainer(log, window=3, seconds=1, seed=0).fit(form)(past)
        return float(np.mean([names(row).index(39) for row in found]))

    with_it = place_of_popular(hymirec_forms.FORMS["HyMiRec"], by_time=True)
    assert set(half_lives) == {hymirec_forms.HALF_LIFE} and (ages[0] > 0).all()
    without = place_of_popular(hymirec_forms.BY_TIME["HyMiRec without regard to time"], by_time=True)
    assert set(half_lives) == {0.0} and (ages[0] > 0).all()
    assert with_it < without - 2
    monkeypatch.setattr(hymirec_forms, "PopularityShift", None)  # not asked
    place_of_popular(hymirec_forms.FORMS["HyMiRec"], by_time=False)
    assert set(half_lives) == {0.0} and (ages[0] == 0).all()


def test_by_time_popularity_is_that_of_the_days_before_the_cut(days: Path) -> None:
    log = load(BY_TIME, days, validation=False, by_time=True)  # type: ignore[arg-type]
    [(_, week, seconds)] = quality.rankers(log, ["popularity, 7 days"], 1, 0)
    late = week(log.tasks["week"].past.of_users(np.arange(20, 40)))
    assert {names(row[:1])[0] for row in late} == {39}
    row = quality.figures([quality.measure(log, week, seconds)])
    assert set(row["week recall@50 by length"]) == {"0", "1-4", "20-99"} and "week coverage@50" in row
    per_user = quality.measure(log, week, seconds).per_user
    assert set(quality.lead(per_user, per_user)) == {"lead week recall@50", "lead week recall@200"}


def test_rows_have_intervals_and_leads_are_paired(log: Log) -> None:
    [(_, popular, seconds)] = quality.rankers(log, ["popularity"], 1, 0)
    run = quality.measure(log, popular, seconds)
    row, per_user = quality.figures([run, run]), quality.mean_over_seeds([run, run])
    assert row["next recall@50 by length"]["0"] == pytest.approx(run.newcomer, abs=1e-4)
    assert set(row["next recall@50 by length"]) == {"0", "1-4", "5-19"}
    mean, low, high = row["window recall@10"]
    assert low <= mean <= high
    better = {task: {name: values + 0.1 for name, values in figures.items()} for task, figures in per_user.items()}
    lead = quality.lead(better, per_user)["lead window recall@50"]
    np.testing.assert_allclose(lead, 0.1, atol=1e-4)


def test_checks_name_the_peer_that_is_ahead() -> None:
    figures = ("window recall@50", "window recall@200", "next recall@10", "next ndcg@10")
    row = partial(dict, **{figure: [0.3, 0.2, 0.4] for figure in figures})
    by_length = {"next recall@50 by length": {"0": 0.1, "1-4": 0.2}}
    rows = [row(name="HyMiRec"), row(name="SASRec") | {"next ndcg@10": [0.31, 0.3, 0.4]}, row(name="popularity")]
    rows[0] |= by_length
    rows[2] |= {"next recall@50 by length": {"0": 0.1, "1-4": 0.21}}
    failed = [check.name for check in quality.checks(rows) if not check.holds]
    assert failed == ["next ndcg@10: SASRec", "next recall@50, 1-4 events: popularity"]


def test_by_time_hymirec_is_to_be_ahead_of_every_other_row() -> None:
    row = partial(dict, **{figure: [0.3, 0.2, 0.4] for figure in ("week recall@50", "week recall@200")})
    ahead = row(name="popularity, 7 days") | {"week recall@200": [0.31, 0.3, 0.4]}
    rows = [row(name="HyMiRec"), row(name="HyMiRec without regard to time"), row(name="SASRec"), ahead]
    found = {check.name: check.holds for check in quality.checks(rows)}
    assert found == {
        "week recall@50: SASRec": True,
        "week recall@200: SASRec": True,
        "week recall@50: popularity, 7 days": True,
        "week recall@200: popularity, 7 days": False,
    }
