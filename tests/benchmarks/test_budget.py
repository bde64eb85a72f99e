from __future__ import annotations

import pytest

from benchmarks import budget
from benchmarks.budget import TRIAL, StepTimes, share_spent, steps_within


@pytest.mark.parametrize("phases", [1, 2])
def test_a_trial_tells_what_a_step_costs_and_what_all_else_does(monkeypatch: pytest.MonkeyPatch, phases: int) -> None:
    """Two seconds to begin with and one to end; a phase's steps take one second or three, the first a second more."""
    clock = [10.0]
    monkeypatch.setattr(budget.time, "process_time", lambda: clock[0])
    times = StepTimes()
    clock[0] += 2
    for phase in range(phases):
        for step in range(TRIAL):
            clock[0] += (1, 3)[phase] + (step == 0)
            times(step, {})
    clock[0] += 1
    assert [times.a_step(phase) for phase in range(phases)] == [1, 3][:phases]
    assert times.all_else(phases) == pytest.approx(3 + phases)
    assert times.passed() == pytest.approx(3 + phases + TRIAL * sum((1, 3)[:phases]))


def test_as_many_steps_as_fit_in_and_one_at_least() -> None:
    assert [steps_within(seconds, 2.0) for seconds in (-1, 0, 1.9, 4, 4.1)] == [1, 1, 1, 2, 2]


def test_a_training_by_time_ends_when_the_time_does(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [12.0]
    monkeypatch.setattr(budget.time, "process_time", lambda: clock[0])
    shares = share_spent(10.0, 8.0)
    assert next(shares) == 0.25
    clock[0] = 16.0
    assert next(shares) == 0.75
    clock[0] = 18.0
    assert not list(shares) and not list(share_spent(18.0, 0.0))
