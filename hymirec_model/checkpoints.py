"""Where a training stands, in files, so that one that was killed goes on where it stopped.

A checkpoint is ``step-N.safetensors`` and ``checkpoint.json``, which names that file with its hash and is replaced
last: a kill at any moment leaves the old checkpoint or the new one. Fingerprints say which training it is of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

FORM = 1  # of the files; another number is another form
_POINTER = "checkpoint.json"


class Store(Protocol):
    """Where files lie: a folder of this machine or an object store. Paths use ``/``."""

    def read(self, path: str) -> bytes | None:
        """Bytes of a file, None if there is none."""

    def replace(self, path: str, data: bytes) -> None:
        """Write a file so that a reader, and a kill, finds the old bytes or the new ones."""

    def remove_file(self, path: str) -> None:
        """Remove a file, if it is there."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Where a training stood after a step."""

    step: int
    """Steps done."""
    facts: dict[str, Any]
    """JSON values."""
    tensors: dict[str, Tensor]
    """By name; on the CPU when read."""


class Checkpoints:
    """The newest checkpoint of a training.

    Parameters
    ----------
    store : Store
    folder : str
        In the store; nothing else lies there.
    say : callable, default=print
        Told in a line whether a checkpoint is taken up, and why not.
    """

    def __init__(self, store: Store, folder: str, say: Callable[[str], object] = print) -> None:
        self._store, self._folder, self._say = store, folder, say
        self._file: str | None = None

    def write(self, training: Mapping[str, str], checkpoint: Checkpoint) -> None:
        """Put ``checkpoint`` in the place of the one before; a copy of its tensors is in memory meanwhile.

        Parameters
        ----------
        training : mapping of str to str
            Name and :func:`fingerprint` of all that decides what the training comes to.
        checkpoint : Checkpoint
        """
        tensors = {name: tensor.detach().contiguous() for name, tensor in checkpoint.tensors.items()}
        data = safetensors.torch.save(tensors)
        name = f"step-{checkpoint.step}.safetensors"
        pointer = {
            "form": FORM,
            "training": dict(training),
            "step": checkpoint.step,
            "file": name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "facts": checkpoint.facts,
        }
        self._store.replace(f"{self._folder}/{name}", data)
        self._store.replace(f"{self._folder}/{_POINTER}", json.dumps(pointer, indent=1).encode())
        if self._file not in (None, name):
            self._store.remove_file(f"{self._folder}/{self._file}")
        self._file = name

    def read(self, training: Mapping[str, str]) -> Checkpoint | None:
        """Return the checkpoint of this ``training``; None, after a line that says why, where there is no usable one.

        Another training's and a damaged one count as none: all that is lost is time.
        """
        raw = self._store.read(f"{self._folder}/{_POINTER}")
        if raw is None:
            return None
        try:
            pointer = json.loads(raw)
            if pointer["form"] != FORM:
                raise ValueError(f"form {pointer['form']} instead of {FORM}")
            self._file, step = str(pointer["file"]), int(pointer["step"])
            other = [name for name in training if pointer["training"].get(name) != training[name]]
            if other:
                self._say(f"training: starts anew; the checkpoint of step {step} is of other {', '.join(other)}")
                return None
            data = self._store.read(f"{self._folder}/{self._file}")
            if data is None or hashlib.sha256(data).hexdigest() != pointer["sha256"]:
                seen = "no such file" if data is None else f"{len(data):,} bytes that are not those written"
                raise ValueError(f"{self._file}: {seen}")
            found = Checkpoint(step=step, facts=pointer["facts"], tensors=safetensors.torch.load(data))
        except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            seen = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            self._say(f"training: starts anew; the checkpoint in {self._folder} is damaged ({seen})")
            return None
        self._say(f"training: goes on after step {step}, from the checkpoint of a run that did not end well")
        return found


def fingerprint(
    settings: object = None,
    tensors: Mapping[str, Tensor] | None = None,
    arrays: Iterable[npt.NDArray[Any]] = (),
) -> str:
    """Sixteen hexadecimal digits that change with JSON values, and with tensors' names, types, shapes and bytes."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in (tensors or {}).items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
