"""A small warehouse of random items and users, with the tables that the later jobs of a day read."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from safetensors.numpy import save_file

from jobs.platform import columns
from jobs.platform.parts import space_version
from jobs.platform.training import version_of
from jobs.platform.warehouse import Warehouse

DIM, K = 16, 3


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def item_vectors(n: int, seed: int = 0, centres_seed: int = 1) -> np.ndarray:
    centres = np.random.default_rng(centres_seed).normal(size=(30, DIM)) + 0.5
    rng = np.random.default_rng(seed)
    return unit(centres[rng.integers(30, size=n)] + 0.5 * rng.normal(size=(n, DIM)))


def write_items(
    wh: Warehouse,
    ds: str,
    vectors: np.ndarray,
    first_ds: list[str],
    *,
    space_version: str = "e1",
    texts: dict[int, str] | None = None,
    files: int = 2,
) -> None:
    """Write catalog and item_vectors; `texts` replaces the text hash of single items."""
    n = len(vectors)
    ids = [f"item-{i}" for i in range(n)]
    hashes = [(texts or {}).get(i, f"hash-{i}") for i in range(n)]
    table = pa.table(
        {
            "item_index": pa.array(range(n), pa.int32()),
            "item_id": ids,
            "title": [f"title {i}" for i in range(n)],
            "text": [f"title {i}" for i in range(n)],
            "text_hash": hashes,
            "category": pa.array([None if i % 5 == 0 else "grocery" for i in range(n)], pa.string()),
            "first_ds": first_ds,
        }
    )
    with wh.write_partition("catalog", ds) as part:
        part.write_table(table)
    wide = table.select(["item_index", "item_id", "text_hash"]).append_column(
        "vector", columns.fixed_lists(vectors.astype(np.float16))
    )
    with wh.write_partition("item_vectors", ds) as part:
        step = -(-n // files)  # other file boundaries than the catalogue's
        for number, start in enumerate(range(0, n, step)):
            part.write_table(wide.slice(start, step), f"part-{number:05d}.parquet")
        part.info |= {"space_version": space_version, "dim": DIM}
        part.info |= {"content": columns.content(vectors.astype(np.float16))}


def write_interests(
    wh: Warehouse,
    ds: str,
    users: int,
    seed: int = 0,
    model_version: str = "m1",
    shift: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Write interests in two buckets."""
    rng = np.random.default_rng(seed)
    vectors = item_vectors(users * K, seed + 100).reshape(users, K * DIM).astype(np.float16)
    weights = rng.random((users, K)).astype(np.float32)
    ids = np.array([f"user-{i:03d}" for i in range(users)])
    bucket = np.array([zlib.crc32(user.encode()) % 2 for user in ids])
    with wh.write_partition("interests", ds) as part:
        for number in (0, 1):
            here = bucket == number
            rows = {
                "user_id": ids[here],
                "interests": columns.fixed_lists(vectors[here]),
                "weights": columns.fixed_lists(weights[here]),
                "n_events": np.full(here.sum(), 7, np.int64),
                "seen": pa.array([[number, 5]] * int(here.sum()), pa.list_(pa.int32())),
                "bonus": pa.array([[0.5, 0.25]] * int(here.sum()), pa.list_(pa.float32())),
            }
            part.write_table(pa.table(rows), f"bucket={number:03d}/part-00000.parquet")
        part.info |= {"model_version": model_version, "k": K, "dim": DIM, "merge": "lse", "scale": 12.0, "buckets": 2}
        part.info |= {"shift_days": shift[0], "shift_strength": shift[1]}


def write_models(wh: Warehouse, ds: str, value: float = 1.0) -> None:
    """Write an encoder, its item space and their recommender that differ by `value`."""
    write_encoder(wh, ds, value)
    write_model(wh, "recommender", ds, value, "model_version", space_version=newest_space_version(wh, ds))


def write_encoder(wh: Warehouse, ds: str, value: float = 1.0) -> None:
    """Write an encoder and its item space."""
    write_model(wh, "encoder", ds, value, "version")
    write_model(wh, "item_space", ds, value, "version", encoder=info(wh, "encoder", ds)["version"])


def write_model(wh: Warehouse, name: str, ds: str, value: float, version: str, **facts: str) -> None:
    with wh.write_partition(name, ds) as part:
        save_file({"weight": np.full(4, value, np.float32)}, part.local / "model.safetensors")
        (part.local / "config.json").write_text("{}\n")
        part.info |= {version: version_of(part.local), **facts}


def info(wh: Warehouse, name: str, ds: str) -> dict[str, Any]:
    """What the writer of the newest partition up to `ds` said."""
    found = wh.latest(name, until=ds)
    assert found is not None
    return found.info


def newest_space_version(wh: Warehouse, ds: str) -> str:
    """That of the item vectors which the newest encoder and item space give."""
    encoder, space = wh.latest("encoder", until=ds), wh.latest("item_space", until=ds)
    assert encoder is not None and space is not None
    return space_version(encoder, space)


def write_evaluation(
    wh: Warehouse, ds: str, model: float = 0.3, popularity: float = 0.2, model_version: str = "m1"
) -> None:
    """Write an evaluation of figures that are given, and the choice that was made by it."""
    rows = [
        {
            "name": name,
            "recall@50": {"mean": mean, "low": mean - 0.01, "high": mean + 0.01},
            "coverage@50": 0.5,
        }
        for name, mean in (("HyMiRec", model), ("popularity", popularity), ("co-occurrence", 0.25))
    ]
    about = {"users": 40, "items": 600, "cut": f"{ds}T00:00:00+00:00", "holdout_days": 7, "rows": rows}
    about |= {"by_history": [], "champion": None, "pairwise_interest_cosine": 0.5}
    versions = {"space": newest_space_version(wh, ds), "codebook": "b1", "recommender": model_version}
    with wh.write_partition("evaluation", ds) as part:
        (part.local / "evaluation.json").write_text(json.dumps(about))
        part.info |= {"cut": about["cut"], "model_version": model_version, "versions": versions}
    with wh.write_partition("model_choice", ds) as part:
        part.info |= {"chosen": "challenger", "why": "it passed the gate", "versions": versions, "refused": None}
        (part.local / "choice.json").write_text(json.dumps(part.info))


def profile(folder: Path, **sections: str) -> str:
    """Write a profile for this data and return its path; a section is YAML flow text such as "{queries:
    60}"."""
    settings = {
        "codebook": "{layers: 4, size: 32, iterations: 5}",
        "index": "{queries: 60, neighbours: 20}",
    } | sections
    path = folder / "small.yaml"
    path.write_text("".join(f"{name}: {text}\n" for name, text in settings.items()))
    return str(path)
