"""Item vectors to measure on: the texts of real catalogues through pretrained encoders, computed once and kept.

Usage::

    python -m benchmarks.item_vectors --data ml-1m --encoder minilm --shared ../data

MiniLM gives the mean of its token states, as it was trained to; SmolLM2 the state at the item token that follows the
closing prompt, as ``embed_catalog`` does before any tuning. The 32,385 texts of The Complete Journey take
minutes by MiniLM and half an hour by SmolLM2 on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from hymirec_model import weights
from hymirec_model.config import EncoderConfig
from hymirec_model.content_encoder import ContentEncoder
from jobs.platform.local import state_folder

DataSet = Literal["ml-1m", "amazon-beauty-2014", "complete-journey"]
Encoder = Literal["minilm", "smollm2"]
DATA_SETS: tuple[DataSet, ...] = get_args(DataSet)
ENCODERS: tuple[Encoder, ...] = get_args(Encoder)
CONFIGS = {
    "minilm": EncoderConfig(weights="minilm-l6", prompt="", batch_tokens=4096),
    "smollm2": EncoderConfig(weights="smollm2-135m", batch_tokens=4096),
}


def item_vectors(data: DataSet, encoder: Encoder, shared: Path) -> npt.NDArray[np.float32]:
    """Unit vectors of the distinct texts of a catalogue, of shape (n, d), in a seeded random order."""
    kept = state_folder() / "cache" / "benchmarks" / f"{data}-{encoder}.npy"
    if not kept.is_file():
        states = embed_texts(item_texts(data, shared), encoder, f"{data}, {encoder}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, states / np.linalg.norm(states, axis=1, keepdims=True))
    return np.asarray(np.load(kept))


def item_texts(data: DataSet, shared: Path) -> list[str]:
    """Distinct texts in a seeded random order."""
    if data == "complete-journey":
        return [str(text) for text in complete_journey_arrivals()["text"]]
    file = shared / data / "items.parquet"
    if not file.is_file():
        raise SystemExit(f"error: no {file}; allowed: a folder --shared with {data}/items.parquet in it")
    distinct = sorted(set(texts_of(pq.read_table(file))))
    return [distinct[i] for i in _shuffled(len(distinct))]


def texts_of(items: pa.Table) -> list[str]:
    """What an encoder reads of each row: its title, and its genres where it has any."""
    columns = [items[name].to_pylist() for name in ("title", "genres") if name in items.schema.names]
    return [". ".join(filter(None, row)).replace("|", ", ") for row in zip(*columns, strict=True)]


def _shuffled(n: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng(0).permutation(n)


def complete_journey_arrivals() -> pd.DataFrame:
    """Distinct texts of The Complete Journey in the order of their vectors: text, department, first day sold (or
    none)."""
    from pyspark.sql import functions as F

    from jobs.platform.sources.complete_journey import complete_journey
    from jobs.platform.spark import session

    events, items = complete_journey(session("benchmark"))
    sold = events.groupBy("item_id").agg(F.min("timestamp").alias("first"))
    text = F.concat_ws(". ", "title", "description", "category").alias("text")
    found = (
        items.join(sold, "item_id", "left")
        .select(text, F.col("category").alias("department"), F.to_date(F.timestamp_seconds("first")).alias("day"))
        .groupBy("text")
        .agg(F.min("department").alias("department"), F.min("day").alias("day"))
        .toPandas()
        .sort_values("text")
    )
    return found.iloc[_shuffled(len(found))].reset_index(drop=True)


def embed_texts(texts: Sequence[str], name: Encoder, title: str) -> npt.NDArray[np.float32]:
    """Text states (n, h), with a progress bar named ``title``."""
    config = CONFIGS[name]
    source = weights.resolve(config.weights, state_folder() / "models")
    # bf16: faster than float32, on CPUs too
    encoder = ContentEncoder.from_pretrained(config, source).eval().to(torch.bfloat16)
    bar = tqdm(total=len(texts), desc=title, unit="text", mininterval=1)
    if name == "smollm2":
        return encoder.embed(texts, bar.update)
    tokens = encoder.tokenize(texts)
    order = np.argsort([len(ids) for ids in tokens], kind="stable")
    states = np.empty((len(texts), encoder.hidden), np.float32)
    for rows in np.array_split(order, -(-len(order) // 128)):
        states[rows] = _mean_state(encoder, [tokens[row] for row in rows])
        bar.update(len(rows))
    return states


@torch.inference_mode()
def _mean_state(encoder: ContentEncoder, tokens: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
    """all-MiniLM's own pooling: the mean over [CLS] text [SEP]."""
    end = encoder.tokenizer.sep_token_id
    batch = encoder.tokenizer.pad({"input_ids": [[*ids, end] for ids in tokens]}, return_tensors="pt")
    states = encoder.backbone(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    return np.asarray(((states * mask).sum(1) / mask.sum(1)).float())
