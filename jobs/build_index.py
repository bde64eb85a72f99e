"""Build the ANN index over the catalogue and measure it against exact search.

Reads ``item_vectors/ds`` and ``interests/ds``, and ``histories/ds`` where what is popular counts. Writes
``index/ds``: shift.npy (what is added to each item's score, see hymirec_model/popularity_shift.py), index.faiss over
the vectors with it (ids are item_index), and index.json. The type and its setting are the cheapest that reach
``index.target_recall`` on sampled interests.
Two recalls are reported, both at ``index.neighbours`` items and both counting items of equal score as found:
that of one interest's search, and that of a user's whole list (search with each interest, unite, re-rank
exactly). Item vectors are read from a file, a shard at a time: only the index itself has to fit into memory, and,
where what is popular counts, the histories that training reads. Takes
seconds for 90,000 items; a graph, built only where nothing cheaper is accurate enough, takes minutes.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hymirec_model.ann_retrieval import search
from hymirec_model.config import IndexConfig
from hymirec_model.histories import DAY_SECONDS
from hymirec_model.index import IndexReport, build_index, save_index, shards, tie_aware_recall
from hymirec_model.merging import Merge, merge_scores
from hymirec_model.popularity_shift import PopularityShift, Shift, shifted_dim, shifted_items, shifted_queries
from jobs.platform import cli, columns, tracking
from jobs.platform.errors import WarehouseError
from jobs.platform.profile import HistoriesConfig, load_profile
from jobs.platform.training import read_histories
from jobs.platform.warehouse import Partition, Warehouse


@dataclass(frozen=True, slots=True)
class Users:
    """Sampled users' interests, and how K scores become one."""

    interests: npt.NDArray[np.float32]
    """(U, K, d)."""
    weights: npt.NDArray[np.float32]
    """(U, K)."""
    merge: Merge
    scale: float

    @property
    def unit(self) -> float:
        """What a cosine is in scores, in which a shift is."""
        return 1.0 if self.merge == "max" else self.scale


@dataclass(frozen=True, slots=True)
class Report:
    """What build_index made."""

    index: IndexReport
    merged_recall: float
    """Recall of users' merged lists against exact retrieval."""
    merge: Merge
    scale: float
    shift: Shift

    def facts(self) -> dict[str, Any]:
        """Content of index.json: what the index is and how exact, without measured times, so that reruns are
        equal."""
        return self.index.facts() | {
            "merged_recall": self.merged_recall,
            "merge": self.merge,
            "scale": self.scale,
            "shift": self.shift._asdict(),
            "ids": "item_index",
            "metric": "inner product of unit vectors; where they are longer than an interest, a 1 and zeros follow it",
        }

    def __str__(self) -> str:
        lines = [
            f"  {trial.type:5s} {' '.join(f'{k}={v}' for k, v in trial.setting.items()):22s} recall "
            f"{trial.recall:.4f}  {trial.microseconds:8.1f} µs CPU a query"
            f"{'  ← chosen' if trial == self.index.chosen else ''}"
            for trial in self.index.tried
        ]
        head = (
            f"index: {self.index.chosen.type} over {self.index.n_items:,} items of "
            f"{self.index.dim} dimensions, {self.index.bytes / 1e6:.1f} MB\n"
            f"recall@{self.index.neighbours}: {self.index.chosen.recall:.4f} an interest, "
            f"{self.merged_recall:.4f} a user's merged list ({self.merge})\n"
        )
        return head + "\n".join(lines)


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Build the ANN index over the catalogue and measure it against exact search.

    Writes index: index.faiss, shift.npy and index.json.
    """
    settings = load_profile(profile)
    config = settings.index
    wh = Warehouse(warehouse)
    vectors, interests = find_inputs(wh, ds)
    with tracking.stage("build_index", ds=ds, refresh_id=cli.refresh_id_or_default(refresh_id, ds)) as run:
        run.params({"index": config})
        report = build(wh, ds, config, vectors, interests, settings.histories)
        chosen = report.index.chosen
        run.params({"chosen": {"type": chosen.type, **chosen.setting}})
        run.metrics({"recall": chosen.recall, "merged_recall": report.merged_recall})
        run.metrics({"cpu_microseconds_a_query": chosen.microseconds, "bytes": report.index.bytes})
        run.text(str(report), "report.txt")
    print(report)


def find_inputs(wh: Warehouse, ds: str) -> tuple[Partition, Partition]:
    """Find item vectors and interests of the day.

    Raises
    ------
    MissingPartition
        If one of them does not exist.
    WarehouseError
        If their vectors differ in length.
    """
    vectors, interests = wh.partition("item_vectors", ds), wh.partition("interests", ds)
    if vectors.info["dim"] != interests.info["dim"]:
        raise WarehouseError(
            f"interests/ds={ds} has {interests.info['dim']} dimensions, "
            f"item_vectors/ds={ds} {vectors.info['dim']}; "
            "allowed: the same; run train_recommender and export_interests for this day again"
        )
    return vectors, interests


def build(
    wh: Warehouse,
    ds: str,
    config: IndexConfig,
    vectors: Partition,
    interests: Partition,
    stored: HistoriesConfig = HistoriesConfig(),  # noqa: B008
) -> Report:
    """Write index/ds.

    Raises
    ------
    InputError
        If no type of the profile reaches the target recall.
    WarehouseError
        If nobody has interests.
    """
    users = sample_users(wh, interests, config)
    queries = users.interests[users.weights > 0][: config.queries]
    with tempfile.TemporaryDirectory(prefix="hymirec-index-") as scratch:
        items = columns.memory_mapped(wh, vectors, "vector", Path(scratch) / "vectors.npy")
        settings, shift = item_shift(wh, ds, len(items), interests, stored)
        indexed = items
        if shift.any():
            indexed = _shifted(items, shift / users.unit, Path(scratch) / "shifted.npy")
            queries = shifted_queries(queries)
    # The files have no name any more, and their room is free when this process ends, however it does.
    index, index_report = build_index(indexed, queries, config)
    merged_recall = _merged_recall(index, items, shift, users, config, index_report.fetch)
    report = Report(index_report, merged_recall, users.merge, users.scale, settings)
    with wh.write_partition("index", ds) as part:
        np.save(part.local / "shift.npy", shift)
        save_index(index, part.local / "index.faiss")
        (part.local / "index.json").write_text(json.dumps(report.facts(), indent=1, sort_keys=True) + "\n")
        part.rows = len(items)
        part.info |= {
            "space_version": vectors.info["space_version"],
            "content": vectors.info["content"],
            "model_version": interests.info["model_version"],
            "recall": index_report.chosen.recall,
            "merged_recall": report.merged_recall,
        }
    return report


def item_shift(
    wh: Warehouse, ds: str, n_items: int, interests: Partition, stored: HistoriesConfig
) -> tuple[Shift, npt.NDArray[np.float32]]:
    """What is added to each item's score at the end of the day, of shape (n_items,), and by which settings."""
    info = interests.info
    settings = Shift(info["shift_days"], info["shift_strength"])
    if not settings.strength:
        return settings, np.zeros(n_items, np.float32)
    log = PopularityShift(read_histories(wh, ds, stored.sample_users), n_items)
    now = int(datetime.fromisoformat(ds).replace(tzinfo=UTC).timestamp()) + DAY_SECONDS
    return settings, log.of_items(now, settings, info["merge"], info["scale"])


def _shifted(items: npt.NDArray[np.float16], shift: npt.NDArray[np.float32], path: Path) -> npt.NDArray[np.float16]:
    """The vectors that are indexed, in a new file that is mapped into memory."""
    made = columns.new_mapped(path, np.float16, (len(items), shifted_dim(items.shape[1])))
    longest = float(np.abs(shift).max(initial=0))
    for start, shard in shards(items):
        rows = slice(start, start + len(shard))
        made[rows] = shifted_items(shard, shift[rows], longest)
    made.flush()
    return made


def sample_users(wh: Warehouse, interests: Partition, config: IndexConfig) -> Users:
    """Interests of as many users, drawn at random, as make up `config.queries` queries."""
    k, dim = interests.info["k"], interests.info["dim"]
    counts = [batch.num_rows for batch in columns.batches(wh, interests, ["user_id"])]
    n_users = sum(counts)
    if not n_users:
        raise WarehouseError(f"interests/ds={interests.ds} has 0 users; allowed: 1 or more; run export_interests again")
    wanted = min(n_users, max(1, config.queries // k))
    rows = np.sort(np.random.default_rng(config.seed).choice(n_users, wanted, replace=False))
    flat = columns.vectors(wh, interests, "interests", rows).astype(np.float32)
    weights = columns.vectors(wh, interests, "weights", rows).astype(np.float32)
    return Users(flat.reshape(-1, k, dim), weights, interests.info["merge"], float(interests.info["scale"]))


def _merged_recall(
    index: Any,
    items: npt.NDArray[np.float16],
    shift: npt.NDArray[np.float32],
    users: Users,
    config: IndexConfig,
    fetch: int,
) -> float:
    """Recall of users' merged lists; the exact ones are found a shard of the items at a time."""
    n = min(config.neighbours, len(items))
    _, found = search(
        index,
        users.interests,
        users.weights,
        items,
        n,
        users.merge,
        users.scale,
        shift=shift if shift.any() else None,
        per_interest=min(n * fetch, len(items)),
        seed=config.seed,
    )
    interests, weights = torch.from_numpy(users.interests), torch.from_numpy(users.weights)
    exact = torch.empty(len(interests), 0)
    for start, shard in shards(items):
        scores = merge_scores(interests, weights, torch.from_numpy(shard), users.merge, users.scale)
        scores += torch.from_numpy(shift[start : start + len(shard)])
        exact = torch.cat([exact, scores], dim=1)
        exact = exact.topk(min(n, exact.shape[1]), dim=1).values
    # Back to the scale of cosines, where a tie is judged.
    return tie_aware_recall(found / users.unit, exact[:, -1].numpy() / users.unit)


if __name__ == "__main__":
    cli.run(main)
