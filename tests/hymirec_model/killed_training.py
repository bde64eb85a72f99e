"""A small training that kills itself: ``python -m tests.hymirec_model.killed_training FOLDER STEP MOMENT``.

It leaves its checkpoints in FOLDER, writes a line of JSON a step, and ends by SIGKILL, at MOMENT ``report`` when it
has reported STEP, at ``pointer`` when the tensors of STEP's checkpoint are written and what points to them is not.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace

from hymirec_model import validation
from hymirec_model.checkpoints import Checkpoints
from jobs.platform.storage import Storage
from tests.hymirec_model.small_training import CONFIG, train

LIST = 8  # of 90 items, so that the recall goes up and down
EVERY = 4
KILLED = replace(
    CONFIG, learning_rate=0.05, backbone_learning_rate=0.05, validate_steps=3, patience=50, checkpoint_steps=EVERY
)


class _DyingStorage(Storage):
    """Writes the tensors of a step, and no further file."""

    last = ""

    def replace(self, path: str, data: bytes) -> None:
        super().replace(path, data)
        if path.endswith(self.last):
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: str, last: int, moment: str) -> None:
    validation.LIST = LIST
    storage = Storage(folder)
    if moment == "pointer":
        storage = _DyingStorage(folder)
        storage.last = f"step-{last}.safetensors"

    def report(step: int, metrics: dict[str, float]) -> None:
        print(json.dumps([step, metrics]), flush=True)
        if moment == "report" and step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    train(config=KILLED, checkpoints=Checkpoints(storage, "checkpoints", lambda *_: None), report=report)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
