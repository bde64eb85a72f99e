"""Image vectors of items: judged by check_inputs, kept in the catalogue, read by train_item_space.

All have one length, the one that most items have: the day's, and those of the catalogue before that the day lacks.
One that is bad costs an item its image, not its place in the catalogue.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.platform import columns
from jobs.platform.warehouse import Warehouse

IMAGE = "image_vector"


def image_length(items: DataFrame, previous: DataFrame | None) -> int:
    """Length that most image vectors have, 0 where there is none; of equally many the shortest.

    Parameters
    ----------
    items : pyspark.sql.DataFrame
        The day's judged rows, of which the good ones count.
    previous : pyspark.sql.DataFrame or None
        The catalogue that the day continues; items that the day lacks keep their images.
    """
    good = items.filter("reason IS NULL")
    images = [good.select(IMAGE)] if IMAGE in items.columns else []
    if previous is not None and IMAGE in previous.columns:
        images.append(previous.join(good, "item_id", "left_anti").select(IMAGE))
    if not images:
        return 0
    sizes = functools.reduce(DataFrame.union, images).filter(f"size({IMAGE}) > 0").groupBy(F.size(IMAGE).alias("size"))
    first = sizes.count().orderBy(F.desc("count"), "size").first()
    return 0 if first is None else int(first["size"])


def judge_images(items: DataFrame, length: int) -> DataFrame:
    """Add ``image_fault``, null where nothing is wrong, and make bad images null; without images drop the column."""
    if not length:
        return items.drop(IMAGE)
    if IMAGE not in items.columns:
        items = items.withColumn(IMAGE, F.lit(None).cast("array<float>"))
    image = F.when(F.size(IMAGE) > 0, F.col(IMAGE))  # an empty list is no image
    finite = F.forall(image, lambda x: F.coalesce(F.abs(x) < float("inf"), F.lit(False)))  # Spark: NaN is above it
    fault = (
        F.when(F.size(image) != length, f"not {length} numbers, as most have")
        .when(~finite, "not all numbers")
        .when(F.forall(image, lambda x: x == 0), "all zero")
    )
    return items.withColumn("image_fault", fault).withColumn(IMAGE, F.when(F.col("image_fault").isNull(), image))


def with_image_faults(items: DataFrame) -> DataFrame:
    """Rows for quarantine: those of bad items, and a second one of good items whose image is bad."""
    if IMAGE not in items.columns:
        return items
    faults = items.filter("reason IS NULL AND image_fault IS NOT NULL")
    faults = faults.withColumns({"column_name": F.lit(IMAGE), "reason": F.col("image_fault")})
    return items.unionByName(faults).drop(IMAGE, "image_fault")


def read_images(wh: Warehouse, ds: str) -> npt.NDArray[np.float16] | None:
    """Unit image vectors of all items of catalog/ds, of shape (items, length), zero where there is none.

    Returns None where no item has one.
    """
    catalog = wh.partition("catalog", ds)
    length = catalog.info.get("image_length", 0)
    if not length:
        return None
    parts = []
    for batch in columns.batches(wh, catalog, [IMAGE]):
        column = batch.column(0)
        part = np.zeros((len(column), length), np.float16)
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        if valid.any():  # vectors of which there are none have no length
            given = columns.matrix(column.drop_null(), "catalog", IMAGE).astype(np.float64)
            part[valid] = given / np.linalg.norm(given, axis=1, keepdims=True)
        parts.append(part)
    return np.concatenate(parts)


def content_hashes(text_hashes: Any, images: npt.NDArray[np.float16]) -> Any:
    """Hashes of text and image together; of items without an image the text's own."""
    hashes = [
        hashlib.sha256(str(text).encode() + image.tobytes()).hexdigest()[:32] if image.any() else text
        for text, image in zip(text_hashes.to_pylist(), images, strict=True)
    ]
    return pa.array(hashes, pa.string())
