"""Training within a budget of CPU time.

A learning rate that falls along a cosine must know how much of the training is done: either by the time that is spent
(stage 1, SASRec and ComiRec), or by steps, of which a short trial that is not counted tells what they cost (stage 2).
"""

from __future__ import annotations

import time
from collections.abc import Iterator

TRIAL = 4
"""Steps of a phase in a trial."""


def share_spent(began: float, seconds: float) -> Iterator[float]:
    """Share of the seconds since ``began`` that are spent, each time it is asked for, until none are left."""
    while (spent := time.process_time() - began) < seconds:
        yield spent / seconds


class StepTimes:
    """When steps were reported, in CPU time; stands where a training reports its steps."""

    def __init__(self) -> None:
        self._began = time.process_time()
        self._at: list[float] = []

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        """Note a step."""
        self._at.append(time.process_time())

    def a_step(self, phase: int = 0) -> float:
        """Seconds of a step of a trial's phase: its first, which warms up, is left out."""
        first = phase * TRIAL
        return (self._at[first + TRIAL - 1] - self._at[first]) / (TRIAL - 1)

    def passed(self) -> float:
        """Seconds from the start until now."""
        return time.process_time() - self._began

    def all_else(self, phases: int = 1) -> float:
        """The same without the steps of a trial's phases."""
        return self.passed() - TRIAL * sum(self.a_step(phase) for phase in range(phases))


def steps_within(seconds: float, a_step: float) -> int:
    """How many steps fit in, one at least."""
    return max(1, int(seconds / a_step))
