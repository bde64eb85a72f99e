"""Processes that die at any moment, overlap, or lose MLflow: a retry leaves the bytes of an undisturbed run."""

from __future__ import annotations

import random
from pathlib import Path

from benchmarks.fault_day import CHAIN, Day, Process, wait_until
from benchmarks.fault_kinds import kill_and_retry, orphan, overlap, tracking_down
from benchmarks.release_race import race
from dags.hymirec_refresh import JOBS

SWITCHES = 1_000


def test_the_chain_is_the_one_of_the_dag() -> None:
    assert list(CHAIN) == ["import_events", *JOBS]


def test_readers_never_see_half_a_release(tmp_path: Path, rng: random.Random) -> None:
    seen = race(tmp_path, SWITCHES, kills=3, rng=rng)
    assert not seen.wrong
    assert seen.switches >= SWITCHES and seen.kills == 3
    assert seen.reads > SWITCHES / 2 and seen.distinct > SWITCHES / 4, "the reader was too slow to prove anything"


def test_publish_killed_at_random(ready: Day, published: tuple[Day, float], rng: random.Random) -> None:
    _, seconds = published
    assert not kill_and_retry(ready, "publish", 3, rng, seconds).wrong


def test_an_import_killed_at_random(empty: Day, rng: random.Random) -> None:
    """A Spark job: its JVM and its workers end with the driver."""
    assert not kill_and_retry(empty, "import_events", 2, rng, 12).wrong


def test_two_publishers_at_once(ready: Day, rng: random.Random) -> None:
    assert not overlap(ready, "publish", 1, rng, 4).wrong


def test_a_job_ends_with_its_parent(ready: Day, rng: random.Random) -> None:
    assert not orphan(ready, "build_index", 6, rng).wrong


def test_mlflow_dies_in_the_middle_of_a_job(ready: Day) -> None:
    assert not tracking_down(ready, "build_index", "middle").wrong


def test_what_outlives_a_kill_is_noticed() -> None:
    """The tests above rest on this: a child that is left is found, and ended."""
    parent = Process(["bash", "-c", "sleep 60 & sleep 60"], {"PATH": "/usr/bin:/bin"})
    assert wait_until(lambda: len(parent.members()) == 3, 10)
    parent.kill()
    assert len(parent.members()) == 2
    assert not parent.all_gone(0.2)
    assert wait_until(lambda: not parent.members(), 10)
