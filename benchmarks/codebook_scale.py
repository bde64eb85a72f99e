"""The codebook's jobs on big catalogues: time, memory, and the speed of Spark beside one process.

Usage::

    make bench-codebook-scale                             up to 10 M items
    make bench-codebook-scale ARGS="--items 100000"

Items are noisy copies of 50,000 random directions, each with a text of its own. ``fit_codebook`` and ``encode_items``
run as in the DAG, as processes on a warehouse of their own; ``peak_mib`` is the largest sum of the resident memory of a
job's processes. ``share_of_ideal`` is the speed of encode_items, start of Spark included, by that of one process
on one thread times the cores. ``decode`` has the speed of decoding by that of copying vectors of the same size.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
import typer
from tqdm import tqdm

from benchmarks.job_runs import run_job
from benchmarks.report import Check, Results
from hymirec_model.codebook import ResidualCodebook
from hymirec_model.config import CodebookConfig
from jobs.platform import columns
from jobs.platform.warehouse import Warehouse
from jobs.train_item_space import ROW_GROUP

DAY, DIM, FILE_ROWS = "2024-01-01", 192, 1_000_000
SINGLE = 100_000  # vectors that one process encodes to compare
DECODED = 200_000
PROFILE = "codebook: {layers: 8}\n"
BYTES_AN_ITEM = 64  # by which memory may grow; a vector has 384


def main(
    items: Annotated[list[int], typer.Option(help="Sizes of the catalogue.")] = [100_000, 1_000_000, 10_000_000],  # noqa: B006
    name: Annotated[str, typer.Option(help="Name of the results file.")] = "codebook-scale",
    folder: Annotated[Path | None, typer.Option(help="Where the warehouses are written for the time being.")] = None,
) -> None:
    """Run the jobs on catalogues of each size and write benchmarks/results/NAME.json."""
    results = Results(name)
    for size in items:
        with tempfile.TemporaryDirectory(dir=folder) as root:
            wh = Warehouse(f"{root}/warehouse")
            write_day(wh, size)
            profile = Path(root) / "scale.yaml"
            profile.write_text(PROFILE)
            for job in ("fit_codebook", "encode_items"):
                results.add({"name": job, "items": size, **run_job(job, wh, DAY, profile, Path(root))})
            one = single_process(wh)
            spark = size / results.rows[-1]["seconds"]
            row = {"name": "encode, one process", "of": size, "vectors_per_s": one}
            results.add(row | {"spark_vectors_per_s": spark, "share_of_ideal": spark / (one * cores())})
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        results.add({"name": f"decode, {device}", **decoding(device)})
    results.checks = checks(results.rows)
    print(f"written: {results.write()}")
    results.show()


def write_day(wh: Warehouse, items: int) -> None:
    """Write item_vectors, catalog and histories of one day."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(50_000, DIM)).astype(np.float32) + 0.5
    with wh.write_partition("item_vectors", DAY) as vectors, wh.write_partition("catalog", DAY) as catalog:
        for start in tqdm(range(0, items, FILE_ROWS), desc="vectors", unit="file"):
            index = np.arange(start, min(start + FILE_ROWS, items), dtype=np.int32)
            rows = np.concatenate([_noisy(centres, part, random) for part in np.array_split(index, 16)])
            texts = pa.array(index).cast(pa.string())
            table = pa.table({"item_index": pa.array(index), "item_id": texts, "text_hash": texts})
            name = f"part-{start // FILE_ROWS:05d}.parquet"
            wide = table.append_column("vector", columns.fixed_lists(rows))
            vectors.write_table(wide, name, row_group_size=ROW_GROUP)
            catalog.write_table(table.append_column("first_ds", pa.array([DAY] * len(index))), name)
        vectors.info |= {"space_version": "scale", "dim": DIM}
    users = min(items // 10, 20_000)
    lists = columns.fixed_lists(random.integers(0, items, (users, 50), dtype=np.int32)).cast(pa.list_(pa.int32()))
    stamps = columns.fixed_lists(np.zeros((users, 50), np.int64)).cast(pa.list_(pa.int64()))
    with wh.write_partition("histories", DAY) as part:
        ids = [f"user-{number}" for number in range(users)]
        table = pa.table({"user_id": ids, "item_indices": lists, "timestamps": stamps, "n_events": [50] * users})
        part.write_table(table, "bucket=000/part-00000.parquet")
        part.info |= {"buckets": 1, "max_length": 50, "keep_from": 0, "layers": []}


def _noisy(centres: npt.NDArray[np.float32], index: Any, random: np.random.Generator) -> npt.NDArray[np.float16]:
    rows = centres[random.integers(len(centres), size=len(index))]
    rows += 0.5 * random.standard_normal(rows.shape, dtype=np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float16)


def single_process(wh: Warehouse) -> float:
    """Vectors a second that one process encodes on one thread."""
    import faiss

    book = ResidualCodebook.load(wh.local_copy(wh.partition("codebook", DAY)))
    rows = np.arange(min(SINGLE, wh.partition("item_vectors", DAY).rows or 0))
    vectors = columns.vectors(wh, wh.partition("item_vectors", DAY), rows=rows)
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    book.encode_best(vectors[:1000])
    start = time.perf_counter()
    for first in range(0, len(vectors), ROW_GROUP):
        book.encode_best(vectors[first : first + ROW_GROUP])
    return len(vectors) / (time.perf_counter() - start)


def decoding(device: str) -> dict[str, float]:
    """Vectors a second that are decoded, and that are copied, in batches that a model would read."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(3000, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    book = ResidualCodebook(CodebookConfig(iterations=1, refit_rounds=0)).fit(vectors)
    table = book.to_module().to(device)
    codes = torch.from_numpy(random.integers(0, 256, (DECODED, 8))).to(device)
    which = torch.zeros(DECODED, dtype=torch.long, device=device)
    source = torch.randn(DECODED, DIM, device=device)
    target = torch.empty_like(source)
    with torch.inference_mode():
        decoded = _fastest(lambda: table(codes, which), device)
        copied = _fastest(lambda: target.copy_(source), device)
    figures = {"vectors_per_s": DECODED / decoded, "copied_per_s": DECODED / copied, "share_of_copy": copied / decoded}
    return figures | {"threads": torch.get_num_threads()}


def _fastest(work: Callable[[], object], device: str) -> float:
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def checks(rows: list[dict[str, Any]]) -> list[Check]:
    """What was asked for: bounded memory, Spark at the speed of the single process times the cores."""
    found = []
    for job in ("fit_codebook", "encode_items"):
        runs = [row for row in rows if row["name"] == job]
        if len(runs) > 1:
            grown = (runs[-1]["peak_mib"] - runs[0]["peak_mib"]) * 2**20 / (runs[-1]["items"] - runs[0]["items"])
            found.append(Check(f"{job}: bytes of memory an item more", grown, BYTES_AN_ITEM, grown <= BYTES_AN_ITEM))
    for row in rows:
        if "share_of_ideal" in row:
            share, title = row["share_of_ideal"], f"encode_items / (one process x cores), {row['of']:,} items"
            found.append(Check(title, share, 0.8, share >= 0.8))
        if "share_of_copy" in row:
            share = row["share_of_copy"]
            found.append(Check(f"{row['name']}: by the speed of a copy", share, 0.5, share >= 0.5))
    return found


if __name__ == "__main__":
    typer.run(main)
