"""The logs' cuts, the peers and the checks of bench-quality, on a small made log."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import LlamaConfig, LlamaModel

from benchmarks import hymirec_forms, quality, rectools_peer
from benchmarks.quality_data import Log, load
from benchmarks.sequence_peers import ComiRec, SASRec, SequenceModel
from hymirec_model import metrics
from hymirec_model.baselines import Popularity, rank

NAME, ITEMS, USERS = "amazon-beauty-2014", 40, 60  # the last 3 events of users with 8 or more


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Users go round a ring of items; some have few events, and every second timestamp is that of the event before."""
    monkeypatch.setenv("HYMIREC_STATE", str(tmp_path / "state"))
    kept = tmp_path / "state" / "cache" / "benchmarks"
    kept.mkdir(parents=True)
    np.save(kept / f"{NAME}-items-minilm.npy", np.random.default_rng(0).normal(size=(ITEMS, 12)).astype(np.float32))
    rows = []
    for user in range(USERS):
        for step in range(5 if user % 10 == 0 else 20):
            rows.append(
                {"user_id": f"u{user:02d}", "item_id": f"i{(user + step) % ITEMS}", "timestamp": step // 2 * 60}
            )
            rows[-1]["seq_rt"] = step
    (tmp_path / NAME).mkdir()
    order = np.random.default_rng(1).permutation(len(rows))  # files promise no order
    pq.write_table(pa.Table.from_pylist([rows[place] for place in order]), tmp_path / NAME / "interactions.parquet")
    ids = [f"i{number}" for number in range(ITEMS)]
    pq.write_table(pa.table({"item_id": ids, "title": [f"title {i}" for i in ids]}), tmp_path / NAME / "items.parquet")
    return tmp_path


@pytest.fixture
def log(folder: Path) -> Log:
    return load(NAME, folder, validation=False)  # type: ignore[arg-type]


def events(histories: object, user: int) -> list[int]:
    offsets = histories.offsets  # type: ignore[attr-defined]
    return list(histories.items[offsets[user] : offsets[user + 1]])  # type: ignore[attr-defined]


def test_each_task_holds_out_the_end_and_training_sees_none_of_it(log: Log) -> None:
    assert len(log.window.past) == USERS - 6 and len(log.next_item.past) == USERS
    for place, user in enumerate(u for u in range(USERS) if u % 10):
        assert len(events(log.window.past, place)) == 17
        assert events(log.train, user) == events(log.window.past, place)
        low, high = log.window.relevant[0][place : place + 2]
        held = set(log.window.relevant[1][low:high])
        assert len(held) == 3 and not held & set(events(log.train, user))
        assert log.next_item.relevant[1][user] in held
        assert len(events(log.next_item.past, user)) == 19
    assert len(events(log.train, 0)) == 4 and len(events(log.next_item.past, 0)) == 4


def test_ties_are_broken_so_that_training_may_cut_where_the_tasks_do(log: Log) -> None:
    for user in range(USERS):
        stamps = log.train.timestamps[log.train.offsets[user] : log.train.offsets[user + 1]]
        assert (np.diff(stamps) > 0).all() and stamps[0] == 0


def test_newcomers_are_those_who_come_when_the_log_ends(log: Log) -> None:
    assert not log.late[::10].any(), "whose few events are long past"
    times = np.arange(USERS) * 60
    log = replace(log, next_item=replace(log.next_item, times=times))
    assert log.late.tolist() == (times >= np.quantile(log.train.timestamps, 0.9)).tolist()
    assert 0 < log.late.sum() < USERS
    taken = log.next_item.relevant[1]  # one item a user
    for item in (taken[log.late][0], taken[~log.late][0]):
        alone = np.append(item, np.full(199, -1))
        run = quality.measure(log, lambda past, alone=alone: np.tile(alone, (len(past), 1)), 0.0)  # type: ignore[misc]
        assert run.newcomer == pytest.approx((taken[log.late] == item).mean())


def test_validation_never_sees_a_test_event(folder: Path, log: Log) -> None:
    earlier = load(NAME, folder, validation=True)  # type: ignore[arg-type]
    for user in range(USERS):
        known, test_known = events(earlier.next_item.past, user), events(log.train, user)
        low, high = earlier.next_item.relevant[0][user : user + 2]
        assert [*known, *earlier.next_item.relevant[1][low:high]] == test_known


def test_item_numbers_do_not_follow_the_file(log: Log) -> None:
    assert log.items == ITEMS
    first = np.unique(log.train.items, return_index=True)[1]
    assert abs(np.corrcoef(np.arange(ITEMS), first)[0, 1]) < 0.6


@pytest.mark.parametrize("kind", [SASRec, ComiRec])
def test_peers_learn(kind: type[SequenceModel], log: Log) -> None:
    model = kind(log, 16, 10, 0.1, 0).fit(log, seconds=4, seed=0)  # type: ignore[call-arg, arg-type]
    found = model.rank(log.next_item.past, mask_seen=True)
    assert found.shape == (USERS, ITEMS)
    for user in range(0, USERS, 7):
        assert not set(found[user]) & set(events(log.next_item.past, user))
    mine = metrics.recall_at(found, log.next_item.relevant, 3).mean()
    popular = Popularity().fit(log.train, ITEMS, int(log.train.timestamps.max()) + 1)
    theirs = metrics.recall_at(rank(popular, log.next_item.past, 200, mask_seen=True), log.next_item.relevant, 3).mean()
    assert mine > theirs + 0.3


def test_the_peer_from_outside_learns_in_its_own_environment(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit, match="make bench-quality"):
        rectools_peer.fit(log, 16, 10, 0.1, seconds=1, seed=0)
    install = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--python", sys.executable]
    packages = ["--target", tmp_path / "state" / "rectools", "--no-deps", "-r", "benchmarks/rectools.txt"]
    subprocess.run([*install, *packages], check=True)
    ranker = rectools_peer.fit(log, 16, 10, 0.1, seconds=3, seed=0)
    past, relevant = log.next_item.past, log.next_item.relevant
    found = ranker(past)
    assert len(found) == USERS
    for user in range(0, USERS, 7):
        known = set(events(past, user))
        listed = [item for item in found[user] if item >= 0]
        assert len(set(listed)) == len(listed) >= 3 and not known & set(listed)
    assert metrics.recall_at(found, relevant, 3).mean() > 0.6
    assert (ranker(log.train) == -1).all(), "lists are known for the tasks' histories alone"


def test_forms_learn(log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama = LlamaConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=4)
    LlamaModel(llama).save_pretrained(tmp_path / "llama")
    monkeypatch.setattr(hymirec_forms, "resolve", lambda *_: str(tmp_path / "llama"))
    monkeypatch.setattr(hymirec_forms, "LIST", ITEMS)
    monkeypatch.setattr(hymirec_forms, "SPACE", replace(hymirec_forms.SPACE, dim=16))
    monkeypatch.setattr(hymirec_forms, "BOOK", replace(hymirec_forms.BOOK, layers=4, size=16))
    trainer = hymirec_forms.Trainer(log, window=3, seconds=2, seed=0)
    for title, form in (hymirec_forms.FORMS | hymirec_forms.ONCE).items():
        found = trainer.fit(form)(log.next_item.past)
        assert found.shape == (USERS, ITEMS)
        for user in range(0, USERS, 7):
            assert not set(found[user]) & set(events(log.next_item.past, user))
        if form.stage_1 != hymirec_forms.LLM_ALONE:  # which takes longer to learn
            assert metrics.recall_at(found, log.next_item.relevant, 3).mean() > 0.8, title


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
