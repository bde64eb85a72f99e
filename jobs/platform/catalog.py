"""The catalogue: one row an item, with a number that never changes and the text that is embedded."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from jobs.platform.item_images import IMAGE
from jobs.platform.profile import ContractConfig

NOT_TEXT = "not UTF-8"
SUPERSEDED, DUPLICATE = "older than another row of the item", "duplicate of another row"
ITEM_COLUMNS = ("item_id", "title", "description", "category", "updated_at")


def is_blank(column: str) -> Column:
    """True where a string column is null or holds nothing but white space."""
    return ~F.coalesce(F.col(column).rlike(r"(?U)\S"), F.lit(False))


def check_items(items: DataFrame, contract: ContractConfig) -> DataFrame:
    """Judge the rows of the input table ``items``.

    Parameters
    ----------
    items : pyspark.sql.DataFrame
        The columns of ITEM_COLUMNS, missing ones filled with null, and image_vector where there is one.
    contract : ContractConfig

    Returns
    -------
    pyspark.sql.DataFrame
        The rows with ``column_name`` and ``reason``, both null for a good row. Of rows with one item_id the
        newest by updated_at is good, and older ones, or such without it, are SUPERSEDED; of rows that are equally new
        a seeded hash chooses, and the others are DUPLICATE.
    """
    for name in ITEM_COLUMNS:
        if name not in items.columns:
            items = items.withColumn(name, F.lit(None).cast("string"))
    images = [name for name in items.columns if name == IMAGE]
    items = items.select(*ITEM_COLUMNS, *images)
    garbled = F.col("item_id").isNotNull() & ~F.is_valid_utf8("item_id")  # titles are mended where text is tidied
    column = F.when(garbled | is_blank("item_id"), "item_id").when(is_blank("title"), "title")
    items = items.withColumn("column_name", column)
    content = F.xxhash64(F.lit(contract.seed), "title", "description", "category")
    order: list[Column | str] = [F.col("updated_at").desc_nulls_last(), content]
    order += ["title", "description", "category", *images]
    window = Window.partitionBy("item_id", F.col("column_name").isNull()).orderBy(*order)
    duplicate = F.col("column_name").isNull() & (F.col("place") > 1)
    return (
        items.withColumns({"place": F.row_number().over(window), "newest": F.first("updated_at").over(window)})
        .withColumn(
            "reason",
            F.when(garbled, NOT_TEXT)
            .when(F.col("column_name").isNotNull(), "null or empty")
            .when(duplicate & ~F.col("updated_at").eqNullSafe(F.col("newest")), SUPERSEDED)
            .when(duplicate, DUPLICATE),
        )
        .withColumn("column_name", F.when(duplicate, "item_id").otherwise(F.col("column_name")))
        .drop("place", "newest")
    )


def build_catalog(
    items: DataFrame,
    previous: DataFrame | None,
    first_seen: DataFrame,
    first_number: int,
    contract: ContractConfig,
    image_length: int = 0,
) -> DataFrame:
    """Continue the catalogue with a day's good items.

    A known item keeps its number and takes the new text; one that vanished keeps its row; new items are
    numbered from ``first_number`` on in the order of a seeded hash, so that a number tells nothing of an
    item's age or id.

    Parameters
    ----------
    items : pyspark.sql.DataFrame
        Good rows of :func:`check_items`.
    previous : pyspark.sql.DataFrame or None
        The catalogue that this one continues.
    first_seen : pyspark.sql.DataFrame
        item_id and first_ds of new items.
    first_number : int
        Rows of ``previous``.
    contract : ContractConfig
    image_length : int, default=0
        That of the images of ``items``; 0 where there are none.

    Returns
    -------
    pyspark.sql.DataFrame
        item_index, item_id, title, text, text_hash, category, first_ds, and image_vector where there are images.
    """
    images = [IMAGE] if image_length else []
    parts = [_tidy(name) for name in ("title", "description", "category")]
    text = F.substring(F.concat_ws(". ", *parts), 1, contract.max_text_chars)
    items = items.select(
        "item_id", _tidy("title").alias("title"), text.alias("text"), _tidy("category").alias("category"), *images
    ).withColumn("text_hash", F.left(F.sha2("text", 256), F.lit(32)))
    known = None if previous is None else previous.select("item_id", "item_index", "first_ds")
    new = items.select("item_id") if known is None else items.select("item_id").join(known, "item_id", "left_anti")
    # One task sorts the ids of the new items, and of nothing else.
    order = Window.orderBy(F.xxhash64(F.lit(contract.seed), "item_id"), "item_id")
    number = (F.row_number().over(order) + F.lit(first_number - 1)).cast("int")
    numbered = new.withColumn("item_index", number).join(first_seen, "item_id", "left")
    numbered = numbered.select("item_id", "item_index", "first_ds")
    numbers = numbered if known is None else known.unionByName(numbered)
    rows = numbers.join(items, "item_id", "left")
    columns = ("title", "text", "text_hash", "category", *images)
    if previous is not None:
        if images:  # of another length they are those of another image model
            there = F.col(IMAGE) if IMAGE in previous.columns else F.lit(None).cast("array<float>")
            previous = previous.withColumn(IMAGE, F.when(F.size(there) == image_length, there))
        old = previous.select("item_id", *(F.col(name).alias(f"old_{name}") for name in columns))
        rows = rows.join(old, "item_id", "left")
        vanished = F.col("text_hash").isNull()
        for name in ("title", "text", "category", *images, "text_hash"):  # text_hash last: it is what tells
            rows = rows.withColumn(name, F.when(vanished, F.col(f"old_{name}")).otherwise(F.col(name)))
    return rows.select("item_index", "item_id", "title", "text", "text_hash", "category", "first_ds", *images)


def _tidy(name: str) -> Column:
    """White space made single; null where nothing is left, which concat_ws leaves out."""
    return F.nullif(F.trim(F.regexp_replace(F.col(name), r"(?U)\s+", " ")), F.lit(""))
