"""Damaged files are refused by name, and a full disk leaves nothing half."""

from __future__ import annotations

import random

from benchmarks.fault_damage import damaged_input, damaged_partition, damaged_release
from benchmarks.fault_day import Day, seen
from benchmarks.fault_kinds import full_disk


def test_each_damaged_file_of_a_release_is_refused_by_name(published: tuple[Day, float], rng: random.Random) -> None:
    day, _ = published
    outcome = damaged_release(day, rng)
    assert not outcome.wrong
    assert outcome.tried == 3 * len(seen(day.warehouse)["release"])


def test_each_damaged_file_of_a_partition_is_refused_by_name(ready: Day, rng: random.Random) -> None:
    outcome = damaged_partition(ready, rng)
    assert not outcome.wrong and outcome.tried >= 20


def test_a_job_names_the_file_that_its_input_lacks(ready: Day, rng: random.Random) -> None:
    assert not damaged_input(ready, "build_index", "interests", "missing", rng).wrong


def test_a_full_disk_has_a_name_and_leaves_nothing_half(ready: Day) -> None:
    """On a real disk of the right size, which takes the right to mount a tmpfs; without it this test fails."""
    assert not full_disk(ready, "build_index").wrong
