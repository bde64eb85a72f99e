"""What the training jobs share: when a model is due, what training may see, versions, and metrics on the way."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from jobs.platform.errors import JobError
from jobs.platform.local import state_folder
from jobs.platform.model_choice import champion_serves
from jobs.platform.profile import Profile
from jobs.platform.user_histories import UserHistories
from jobs.platform.warehouse import Partition, Warehouse

if TYPE_CHECKING:
    from hymirec_model.histories import Histories
    from jobs.platform.tracked_runs import StageRun

MODELS = state_folder() / "models"
"""Cache of pretrained weights that had to be converted."""
LOGGED_POINTS = 100  # of a loss curve; each is a round trip to MLflow
READ = ("users", "tokens")
CHECKPOINTS = ".checkpoints"
"""Folder of the warehouse, which no listing of tables shows, with a folder a table for trainings that are not done."""


def why_due(
    wh: Warehouse, newest: Partition | None, ds: str, profile: Profile, retrain: str | None, *sections: str
) -> str:
    """Reason to train a model on day ``ds``; empty when it is not due.

    It is not where the day's model was refused already and the champion serves, unless ``retrain`` says always.

    Parameters
    ----------
    wh : Warehouse
    newest : Partition or None
        The model of an earlier day, written with :func:`facts_of`.
    ds : str
    profile : Profile
    retrain : {"auto", "always", "never"} or None
        Overrides the profile's.
    *sections : str
        Sections of the profile that the model was made by, or single settings of them (``section.key``); it is due when
        one of them has changed.

    Raises
    ------
    JobError
        If a model has to be trained and training is forbidden.
    """
    if newest is not None and retrain != "always" and champion_serves(wh, ds):
        return ""
    policy = retrain or profile.retrain
    if newest is None:
        why = "there is no model yet"
    else:
        now = facts_of(ds, profile, *sections)
        why = _changes(newest.info["settings"], now["settings"])
        if newest.info["cut"] > now["cut"]:  # held-out days would be part of what it was trained on
            why = f"evaluation.holdout_days holds out events from {now['cut']} on, and the model has seen some"
    if policy == "never" and why:
        raise JobError(f"retrain is never, but before ds={ds} {why}; allowed: auto or always")
    if why or newest is None:
        return why
    if policy == "always":
        return "retrain is always"
    trained = newest.info["trained"]
    age = (datetime.date.fromisoformat(ds) - datetime.date.fromisoformat(trained)).days
    if policy == "auto" and age >= profile.retrain_every_days:
        return f"the model of {trained} is {age} days old (retrain_every_days: {profile.retrain_every_days})"
    return ""


def facts_of(ds: str, profile: Profile, *sections: str) -> dict[str, Any]:
    """What a model's partition keeps for :func:`why_due`: the day, the first one held out, and the parts of the
    profile it was made by."""
    settings = {}
    for name in sections:
        section, _, key = name.partition(".")
        values = dataclasses.asdict(getattr(profile, section))
        settings[section] = {key: values[key]} if key else values
    cut = evaluation_cut(ds, profile.evaluation.holdout_days).date().isoformat()
    return {"trained": ds, "cut": cut, "settings": json.loads(json.dumps(settings))}


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    changed = [
        f"{section}.{key} from {before.get(section, {}).get(key)} to {value}"
        for section, values in now.items()
        for key, value in values.items()
        if before.get(section, {}).get(key) != value
    ]
    return f"the profile changed {', '.join(changed)}" if changed else ""


def evaluation_cut(ds: str, holdout_days: int) -> datetime.datetime:
    """Midnight UTC at which the held-out days begin: ``holdout_days`` days up to and including ``ds``.

    No training, and no fit of a codebook, sees an event from here on.
    """
    day = datetime.date.fromisoformat(ds) - datetime.timedelta(days=holdout_days - 1)
    return datetime.datetime.combine(day, datetime.time(), datetime.UTC)


def without_held_out(histories: Histories, ds: str, profile: Profile) -> Histories:
    """Histories of day ``ds`` with only the events before the held-out days, as many of them as are always there.

    That is the newer half of what a history may hold: a full one has dropped as many old events as it got new ones,
    so its oldest event tells how many fell on the held-out days.
    """
    cut = evaluation_cut(ds, profile.evaluation.holdout_days)
    return histories.before(int(cut.timestamp())).newest(profile.histories.max_length // 2)


def read_histories(wh: Warehouse, ds: str, most: int) -> Histories:
    """Histories of ``most`` users on day ``ds``, in the order of their ids; memory grows by 16 bytes an event."""
    from hymirec_model.histories import Histories

    return Histories.from_arrow(UserHistories.find(wh, ds).read(["item_indices", "timestamps"], most))


def training_histories(wh: Warehouse, ds: str, profile: Profile) -> Histories:
    """Histories of day ``ds`` :func:`without_held_out` days, of the users who have any events before them.

    Raises
    ------
    JobError
        If no event is left.
    """
    histories = without_held_out(read_histories(wh, ds, profile.histories.sample_users), ds, profile)
    if not len(histories.items):
        cut = evaluation_cut(ds, profile.evaluation.holdout_days).date()
        raise JobError(
            f"histories/ds={ds}: seen no event before {cut}, where the held-out days begin; allowed: 1 or more. "
            "Import earlier days, choose a later ds, or set evaluation.holdout_days lower"
        )
    return histories.of_users(np.flatnonzero(np.diff(histories.offsets)))


def version_of(folder: Path) -> str:
    """Fingerprint of the files of a model: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


class Progress:
    """Progress bar on stderr and loss curve in MLflow, fed by a training loop; `losses` keeps the curve.

    Of the metrics `users` and `tokens`, what a step has read, MLflow gets the rates ``users_per_second`` and
    ``tokens_per_second`` since the point before, by the wall clock: with what is measured and saved between steps.

    Parameters
    ----------
    run : StageRun
    title : str
    steps : int
    prefix : str, default=""
        Put before the metrics' names in MLflow.
    """

    def __init__(self, run: StageRun, title: str, steps: int, prefix: str = "") -> None:
        self._run, self._every, self._prefix = run, max(1, steps // LOGGED_POINTS), prefix
        self._last = steps
        self._read: Counter[str] = Counter()
        self._since: float | None = None
        self.losses: dict[int, float] = {}
        self._bar = tqdm(total=steps, desc=title, unit="step", file=sys.stderr, mininterval=2.0)

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        """Take the metrics of a step, counted from 1."""
        self._bar.set_postfix(loss=f"{metrics['loss']:.3f}", refresh=False)
        self._bar.update(step - self._bar.n)
        shown = {name: value for name, value in metrics.items() if name not in READ}
        if self._since is None:  # when the first step began is not known
            self._since = time.monotonic()
        else:
            self._read.update({name: metrics[name] for name in READ if name in metrics})
        if step == 1 or step % self._every == 0 or step == self._last or "validation_recall" in metrics:
            self.losses[step] = metrics["loss"]
            shown |= self._rates()
            self._run.metrics({self._prefix + name: value for name, value in shown.items()}, step=step)
        if step == self._last:
            self.close()

    def close(self) -> None:
        """Leave the bar as it is; for a training that ends before its last step."""
        self._bar.close()

    def _rates(self) -> dict[str, float]:
        now = time.monotonic()
        seconds = now - (self._since or now)
        rates = {f"{name}_per_second": total / seconds for name, total in self._read.items()} if seconds else {}
        self._read.clear()
        self._since = now
        return rates
