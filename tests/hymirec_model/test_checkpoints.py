from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hymirec_model.checkpoints import Checkpoint, Checkpoints, fingerprint
from jobs.platform.storage import Storage
from tests.hymirec_model.killed_training import EVERY, KILLED, LIST
from tests.hymirec_model.small_training import CONFIG, Curve, train

WHOLE = KILLED.light_steps + KILLED.steps
SHORT = replace(CONFIG, light_steps=3, steps=2, checkpoint_steps=2)


def killed(repository: Path, folder: Path, last: int, moment: str) -> Curve:
    """Train until the process kills itself, and return what it reported."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hymirec_model.killed_training", str(folder), str(last), moment],
        cwd=repository,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    return [(step, metrics) for step, metrics in map(json.loads, done.stdout.splitlines())]


def test_a_training_killed_twice_ends_as_one_that_was_not(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hymirec_model.validation.LIST", LIST)
    figures, curve, model = train(config=KILLED)
    assert 0 < figures["validation_recall_kept_step_llm"] < KILLED.steps, "the best weights are not the last ones"
    rng, said = random.Random(7), list[str]()
    first = rng.randrange(EVERY, KILLED.light_steps)
    second = rng.randrange(KILLED.light_steps + EVERY, WHOLE) // EVERY * EVERY

    runs = [killed(repository, tmp_path, first, "report"), killed(repository, tmp_path, second, "pointer")]
    checkpoints = Checkpoints(Storage(str(tmp_path)), "checkpoints", said.append)
    same_figures, rest, same_model = train(config=KILLED, checkpoints=checkpoints)
    runs.append(rest)

    starts = [run[0][0] for run in runs]
    assert starts == [1, (first - 1) // EVERY * EVERY + 1, second - EVERY + 1]
    assert said == [
        f"training: goes on after step {second - EVERY}, from the checkpoint of a run that did not end well"
    ]
    for run in runs:
        assert run == curve[run[0][0] - 1 : run[-1][0]]
    assert rest[-1][0] == WHOLE
    assert same_figures == figures
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, same_model.state_dict()[name]), name
    assert {path.suffix for path in (tmp_path / "checkpoints").iterdir()} == {".safetensors", ".json"}


def cut(folder: Path) -> None:
    path = next(folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-10])


def flip(folder: Path) -> None:
    path = next(folder.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lose(folder: Path) -> None:
    next(folder.glob("*.safetensors")).unlink()


def garble(folder: Path) -> None:
    (folder / "checkpoint.json").write_text('{"form": 1')


def empty(folder: Path) -> None:
    (folder / "checkpoint.json").write_text("[]")


@pytest.mark.parametrize("damage", [cut, flip, lose, garble, empty])
def test_a_damaged_checkpoint_is_told_and_not_used(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    said: list[str] = []
    training = {"settings": "a"}
    checkpoints = Checkpoints(Storage(str(tmp_path)), "x", said.append)
    checkpoints.write(training, Checkpoint(step=3, facts={"n": 1}, tensors={"t": torch.arange(500.0)}))
    damage(tmp_path / "x")
    assert checkpoints.read(training) is None
    assert len(said) == 1 and said[0].startswith("training: starts anew; the checkpoint in x is damaged (")


def test_what_was_written_is_read_and_only_the_newest_stays(tmp_path: Path) -> None:
    said: list[str] = []
    tensors = {"a/b": torch.randn(3, 4).T, "scalar": torch.tensor(2.5), "bytes": torch.get_rng_state()}
    facts = {"random": {"state": 2**127 + 3}, "figures": {"x": 0.1 + 0.2, "none": None}}
    store = Storage(str(tmp_path))
    for step in (3, 6):
        checkpoints = Checkpoints(store, "x/ds=2020-03-20", said.append)
        checkpoints.read({"settings": "a"})
        checkpoints.write({"settings": "a"}, Checkpoint(step=step, facts=facts, tensors=tensors))
    found = Checkpoints(store, "x/ds=2020-03-20", said.append).read({"settings": "a"})
    assert found is not None and (found.step, found.facts) == (6, facts)
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())
    assert sorted(path.name for path in (tmp_path / "x/ds=2020-03-20").iterdir()) == [
        "checkpoint.json",
        "step-6.safetensors",
    ]


def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path) -> None:
    said: list[str] = []
    checkpoints = Checkpoints(Storage(str(tmp_path)), "x", said.append)
    train(config=SHORT, checkpoints=checkpoints)
    other = replace(SHORT, seed=1)
    _, curve, _ = train(config=other, checkpoints=checkpoints)
    assert [step for step, _ in curve] == [1, 2, 3, 4, 5]
    assert said == ["training: starts anew; the checkpoint of step 4 is of other settings"]
    _, curve, _ = train(config=replace(other, checkpoint_steps=1), checkpoints=checkpoints)
    assert [step for step, _ in curve] == [5], "how often checkpoints are left decides nothing"
    _, curve, _ = train("dmil", other, checkpoints=checkpoints)
    assert len(curve) == 5
    assert said[-1] == "training: starts anew; the checkpoint of step 5 is of other settings"


def test_without_checkpoints_nothing_is_written(tmp_path: Path) -> None:
    train(config=replace(SHORT, checkpoint_steps=0), checkpoints=Checkpoints(Storage(str(tmp_path)), "x"))
    assert not list(tmp_path.iterdir())


def test_fingerprints_change_with_whatever_counts() -> None:
    one = torch.zeros(2, 3)
    seen = [
        fingerprint(),
        fingerprint({"a": 1}),
        fingerprint({"a": 2}),
        fingerprint(tensors={"x": one}),
        fingerprint(tensors={"y": one}),
        fingerprint(tensors={"x": one.T}),
        fingerprint(tensors={"x": one.int()}),
        fingerprint(tensors={"x": one + 1}),
        fingerprint(arrays=[one.numpy()]),
        fingerprint(arrays=[one.numpy() + 1]),
    ]
    assert len(set(seen)) == len(seen)
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint(tensors={"x": torch.ones(3, 2).T}) == fingerprint(tensors={"x": torch.ones(2, 3)})
