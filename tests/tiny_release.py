"""A release of two small files, made by a draft."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.platform.release_draft import new_draft
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse


def make(wh: Warehouse, ds: str, word: str = "one", parent: str | None = None) -> Release:
    """Seal a release of day `ds` whose content depends on `word`."""
    with new_draft(wh) as draft:
        (draft.folder / "items").mkdir()
        pq.write_table(pa.table({"item_id": [word, "b"]}), draft.folder / "items" / "part-00000.parquet")
        (draft.folder / "index").mkdir()
        (draft.folder / "index" / "index.faiss").write_text(word)
        return draft.seal(ds, parent, {"rows": {"items": 2}})
