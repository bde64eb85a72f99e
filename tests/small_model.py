"""A tiny real recommender with its codebook, histories for it, and a warehouse day that holds them."""

from __future__ import annotations

import datetime
import zlib

import numpy as np
import pyarrow as pa
import torch
from transformers import LlamaConfig, LlamaModel

from hymirec_model.codebook import ResidualCodebook
from hymirec_model.config import CodebookConfig, RecommenderConfig
from hymirec_model.habits import Habits
from hymirec_model.histories import Histories
from hymirec_model.hymirec import HyMiRec
from hymirec_model.popularity_shift import Shift
from jobs.platform.lineage import accepted_chain, lineage
from jobs.platform.warehouse import Warehouse
from tests.small_day import DIM, item_vectors, write_items

DAY = "2020-03-20"
NOW = int(datetime.datetime(2020, 3, 21, tzinfo=datetime.UTC).timestamp())
BUCKETS = 3


def recommender(merge: str = "lse", seed: int = 0) -> HyMiRec:
    torch.manual_seed(seed)
    config = RecommenderConfig(interests=3, coarse_interests=4, history=30, recent=5, light_width=16, merge=merge)
    llama = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=48,
        vocab_size=1,
    )
    model = HyMiRec(config, DIM, LlamaModel(llama)).eval()
    with torch.no_grad():  # untrained, all interests of a user are the mean of the history
        model.light.set_breadth(0.5)
        model.set_habits(Habits(strength=0.5, satiety=0.25))
        model.set_shift(Shift(days=7, strength=0.5))
        model.light.write.weight.add_(torch.randn(model.light.write.weight.shape))
    return model


def codebook(n_items: int) -> tuple[ResidualCodebook, np.ndarray]:
    vectors = item_vectors(n_items)
    return ResidualCodebook(CodebookConfig(layers=4, size=32, iterations=3)).fit(vectors), vectors


def table(users: int, n_items: int, extra: int | None = None, seed: int = 0) -> pa.Table:
    """Histories of the ten weeks before NOW: people come back to favourites of their own."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        size = int(rng.integers(2, 45))
        favourites = rng.integers(0, n_items, 6)
        items = np.where(rng.random(size) < 0.6, rng.choice(favourites, size), rng.integers(0, n_items, size))
        if extra is not None:
            items[-1] = extra
        stamps = np.sort(NOW - 1 - rng.integers(0, 70 * 86_400, size))
        stamps[-1] = NOW - 1 - int(rng.integers(0, 5 * 86_400))  # everybody is seen in the last days
        rows.append(
            {
                "user_id": f"user-{user:03d}",
                "item_indices": items.tolist(),
                "timestamps": np.sort(stamps).tolist(),
                "n_events": size,
            }
        )
    fields: list[tuple[str, pa.DataType]] = [
        ("user_id", pa.string()),
        ("item_indices", pa.list_(pa.int32())),
        ("timestamps", pa.list_(pa.int64())),
        ("n_events", pa.int64()),
    ]
    return pa.Table.from_pylist(rows, pa.schema(fields))


def histories(users: int, n_items: int, extra: int | None = None) -> Histories:
    return Histories.from_arrow(table(users, n_items, extra))


def write_day(
    wh: Warehouse, users: int = 40, n_items: int = 300, merge: str = "lse", space_version: str = "e1"
) -> None:
    """Write what evaluate and export_interests read."""
    book, vectors = codebook(n_items)
    write_items(wh, DAY, vectors, ["2020-01-01"] * n_items, space_version=space_version)
    generations, codes = book.encode_best(vectors)
    with wh.write_partition("codebook", DAY) as part:
        book.save(part.local)
        part.info |= {"book": "b1", "tables": ["t1"], "space_version": space_version}
    with wh.write_partition("item_codes", DAY) as part:
        flat = pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), codes.shape[1])
        index = pa.array(range(n_items), pa.int32())
        ids = [f"item-{i}" for i in range(n_items)]
        hashes = [f"hash-{i}" for i in range(n_items)]
        columns = {"item_index": index, "item_id": ids, "text_hash": hashes, "generation": pa.array(generations)}
        part.write_table(pa.table(columns | {"codes": flat}), "from-000000000000.parquet")
        part.info |= {"book": "b1", "tables": ["t1"], "space_version": space_version, "generations": 1, "layers": 4}
        part.info |= {"cosine": 0.95, "zero_line": 0.6, "neighbour_recall": 0.7, "usage": 1.0}
    with wh.write_partition("recommender", DAY) as part:
        recommender(merge).save(part.local)
        part.info |= {"model_version": "m1", "space_version": space_version}
    write_histories(wh, table(users, n_items))


def write_histories(wh: Warehouse, rows: pa.Table, ds: str = DAY) -> None:
    """Write histories in one layer, and the accepted events that they stand for: as good as empty."""
    before = wh.latest("accepted_events", until=ds, strict=True)
    with wh.write_partition("accepted_events", ds) as part:
        part.write_table(pa.table({"user_id": pa.array([], pa.string())}))
        part.info |= {"previous": before.ds if before else None, "content": f"{len(rows)} users on {ds}"}
    buckets = np.array([zlib.crc32(user.encode()) % BUCKETS for user in rows["user_id"].to_pylist()])
    with wh.write_partition("histories", ds) as part:
        for bucket in range(BUCKETS):
            if (buckets == bucket).any():
                part.write_table(rows.filter(pa.array(buckets == bucket)), f"bucket={bucket:03d}/part-00000.parquet")
        events = sum(rows["n_events"].to_pylist())
        part.info |= {
            "buckets": BUCKETS,
            "max_length": 1000,
            "max_days": None,
            "keep_from": 0,
            "users": len(rows),
            "events": events,
            "deletions": "",
        }
        part.info |= {"lineage": lineage(accepted_chain(wh, ds))[ds], "since": None, "layers": []}
        part.info |= {"layer_events": events}
