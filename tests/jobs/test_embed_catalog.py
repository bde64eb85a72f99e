from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from hymirec_model.config import EncoderConfig
from hymirec_model.content_encoder import ContentEncoder
from hymirec_model.weights import resolve
from jobs.embed_catalog import embed_catalog
from jobs.platform.errors import WarehouseError
from jobs.platform.text_states import read_states
from jobs.platform.warehouse import Partition, Warehouse

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FIRST, SECOND, THIRD = "2020-03-01", "2020-03-02", "2020-03-03"
TEXTS = [f"product number {number % 15}" for number in range(20)]


def write_catalog(wh: Warehouse, ds: str, texts: list[str]) -> Partition:
    with wh.write_partition("catalog", ds) as part:
        part.write_table(
            pa.table(
                {
                    "item_index": pa.array(range(len(texts)), pa.int32()),
                    "text": texts,
                    "text_hash": [f"hash of {text}" for text in texts],
                }
            )
        )
    return wh.partition("catalog", ds)


def write_encoder(wh: Warehouse, ds: str, encoder: ContentEncoder, version: str) -> Partition:
    with wh.write_partition("encoder", ds) as part:
        encoder.save(part.local)
        part.info["version"] = version
    return wh.partition("encoder", ds)


def hashes(wh: Warehouse, partition: Partition) -> list[str]:
    return sorted(wh.read(partition, ["text_hash"])["text_hash"].to_pylist())


def test_each_text_is_embedded_once_by_each_encoder(spark: SparkSession, warehouse: Warehouse, tmp_path: Path) -> None:
    wh = warehouse
    model = ContentEncoder.from_pretrained(EncoderConfig(precision="float32"), resolve("minilm-l6", tmp_path)).eval()
    encoder = write_encoder(wh, FIRST, model, "v1")
    catalog = write_catalog(wh, FIRST, TEXTS)
    with pytest.raises(WarehouseError, match=r"seen none by encoder v1; .*run embed_catalog"):
        read_states(wh, FIRST, encoder)
    written = embed_catalog(spark, wh, FIRST, catalog, encoder)
    assert written.rows == 15 and hashes(wh, written) == sorted({f"hash of {text}" for text in TEXTS})
    assert written.info["encoder_version"] == "v1" and written.info["dim"] == model.hidden

    states, state_of_item = read_states(wh, FIRST, encoder)
    np.testing.assert_allclose(states[state_of_item], model.embed(TEXTS), atol=5e-3)

    again = embed_catalog(spark, wh, FIRST, wh.partition("catalog", FIRST), encoder)
    assert again.folder != written.folder
    for name in written.files:
        assert (wh.local_copy(again) / name).read_bytes() == (wh.local_copy(written) / name).read_bytes()

    more = write_catalog(wh, SECOND, [*TEXTS, "a new one", "a new one"])
    with pytest.raises(WarehouseError, match="seen no state for 2 of 22 items"):
        read_states(wh, SECOND, encoder)
    second = embed_catalog(spark, wh, SECOND, more, encoder)
    assert second.rows == 1 and hashes(wh, second) == ["hash of a new one"]
    states, state_of_item = read_states(wh, SECOND, encoder)
    assert len(states) == 16 and state_of_item[20] == state_of_item[21]

    other = write_encoder(wh, THIRD, model, "v2")
    third = embed_catalog(spark, wh, THIRD, write_catalog(wh, THIRD, TEXTS), other)
    assert third.rows == 15 and third.info["encoder_version"] == "v2"
    none = embed_catalog(spark, wh, "2020-03-04", write_catalog(wh, "2020-03-04", TEXTS), other)
    assert none.rows == 0
    states, _ = read_states(wh, "2020-03-04", other)
    assert len(states) == 15
