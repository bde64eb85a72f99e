"""SASRec of RecTools 0.19, from outside: its own packages, its own training, lists by its own ranker.

Run as a script by :mod:`benchmarks.quality` with RecTools' packages on the path, so nothing of ours is imported here:
``python rectools_sasrec.py IN.npz OUT.npz SETTINGS`` where SETTINGS is JSON with ``seconds`` of CPU time, ``seed``,
``positions``, ``dropout``, ``factors``, ``mask_seen`` and the names of the ``tasks``. IN has the columns ``users``,
``items`` and ``times`` of what training may see, and for each task ``TASK_users``, ``TASK_items``, ``TASK_times`` of
what is known when it ranks, and ``TASK_count``. OUT has ``TASK``: 200 item numbers a user, -1 where there is none.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.item_net import IdEmbeddingsItemNet

LIST = 200


class StopAfter(Callback):  # type: ignore[misc]
    """Ends the training after so many seconds of CPU time."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.started = seconds, time.process_time()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: object) -> None:
        """Look at the clock."""
        trainer.should_stop = time.process_time() - self.started > self.seconds


def dataset(users: np.ndarray, items: np.ndarray, times: np.ndarray) -> Dataset:
    """Interactions as RecTools takes them; times are made ascending, as equal ones have no order there."""
    table = pd.DataFrame(
        {
            Columns.User: users,
            Columns.Item: items,
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(times, unit="s"),
        }
    )
    return Dataset.construct(table)


def main(source: str, target: str, settings: dict[str, Any]) -> None:
    """Train and rank."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    given = np.load(source)
    seed_everything(settings["seed"], verbose=False)
    began = time.process_time()

    def trainer() -> Trainer:
        left = settings["seconds"] - (time.process_time() - began)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        return Trainer(
            accelerator="cpu",
            max_epochs=10_000,
            callbacks=[StopAfter(left)],
            enable_checkpointing=False,
            **quiet,
        )

    model = SASRecModel(
        n_factors=settings["factors"],
        n_heads=2,
        dropout_rate=settings["dropout"],
        session_max_len=settings["positions"],
        loss="softmax",  # over all items: the strongest of its losses on catalogues of this size
        item_net_block_types=(IdEmbeddingsItemNet,),
        get_trainer_func=trainer,
    )
    model.fit(dataset(given["users"], given["items"], given["times"]))
    lists = {}
    for task in settings["tasks"]:
        users, items, times = (given[f"{task}_{name}"] for name in ("users", "items", "times"))
        known = np.isin(items, given["items"])  # it cannot read items that it was not trained on
        users, items, times = users[known], items[known], times[known]
        found = model.recommend(
            np.unique(users), dataset(users, items, times), LIST, filter_viewed=settings["mask_seen"]
        )
        rows = np.full((int(given[f"{task}_count"]), LIST), -1, np.int64)
        rows[found[Columns.User], found[Columns.Rank] - 1] = found[Columns.Item]
        lists[task] = rows
    np.savez(target, **lists)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
