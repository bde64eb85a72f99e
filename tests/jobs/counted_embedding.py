"""embed_catalog with slices of a few texts, which logs each slice that a worker begins to embed.

Usage::

    python -m tests.jobs.counted_embedding LOG --warehouse URI --ds DAY

A module of its own, so that Spark's workers can import it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import pyarrow as pa

from jobs import embed_catalog
from jobs.platform import cli, text_states
from jobs.platform.text_states import SliceEmbedding
from jobs.platform.warehouse import Warehouse

SLICE_TEXTS = 64


@dataclass(frozen=True)
class CountedEmbedding(SliceEmbedding):
    """Logs its process, the loads of an encoder in it so far, and the slice."""

    def embed(self, wh: Warehouse, rows: pa.Table) -> bytes:
        log = os.open(os.environ["EMBED_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        text_states._loaded(str(wh.local_copy(self.encoder)))
        loads = text_states._loaded.cache_info().misses
        os.write(log, f"{os.getpid()} {loads} {self.file_name(rows)}\n".encode())
        os.close(log)
        return super().embed(wh, rows)


if __name__ == "__main__":
    os.environ["EMBED_LOG"] = sys.argv.pop(1)
    from tests.jobs import counted_embedding  # by its name: workers know no __main__ of the driver's

    embed_catalog.SliceEmbedding = counted_embedding.CountedEmbedding  # type: ignore[misc]
    embed_catalog.SLICE_TEXTS = SLICE_TEXTS
    cli.run(embed_catalog.main)
