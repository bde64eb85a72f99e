"""The parts of a release: which tables they are, and whether they were made from one another."""

from __future__ import annotations

import hashlib
import shutil

from jobs.platform.errors import JobError
from jobs.platform.warehouse import Partition, Warehouse

MODEL_PARTS = ("encoder", "item_space", "recommender", "codebook")
DAY_PARTS = ("catalog", "item_vectors", "item_codes", "interests", "index", "evaluation", "model_choice")
_ROW_AN_ITEM = ("catalog", "item_vectors", "item_codes", "index")
_SHARED = (
    ("space_version", ("item_vectors", "item_codes", "codebook", "recommender", "index")),
    ("content", ("item_vectors", "index")),
    ("book", ("codebook", "item_codes")),
    ("tables", ("codebook", "item_codes")),
    ("model_version", ("recommender", "evaluation", "interests", "index")),
    ("dim", ("item_vectors", "interests")),
)


class MixedParts(JobError):
    """The day's tables do not belong together."""


def find_parts(wh: Warehouse, ds: str) -> dict[str, Partition]:
    """Find everything that goes into the release of day ``ds``, by table.

    Raises
    ------
    MissingPartition
        If something is missing.
    MixedParts
        If the parts were not made from one another.
    """
    parts = {name: wh.partition(name, ds) for name in DAY_PARTS} | model_parts(wh, ds)
    _check_equal("rows", {_name(parts[name]): parts[name].rows for name in _ROW_AN_ITEM})
    chosen, seen = parts["model_choice"].info["versions"], parts["evaluation"].info["versions"]
    for key in ("space", "recommender"):
        _check_equal(key, {_name(parts["model_choice"]): chosen[key], _name(parts["evaluation"]): seen[key]})
    for key, tables in _SHARED:
        _check_equal(key, {_name(parts[name]): parts[name].info[key] for name in tables})
    encoder, space, vectors = parts["encoder"], parts["item_space"], parts["item_vectors"]
    _check_equal("encoder", {_name(encoder): encoder.info["version"], _name(space): space.info["encoder"]})
    made = space_version(encoder, space)
    _check_equal(
        "space_version",
        {f"{_name(encoder)} with {_name(space)}": made, _name(vectors): vectors.info["space_version"]},
    )
    return parts


def model_parts(wh: Warehouse, ds: str) -> dict[str, Partition]:
    """Find the newest model parts on or before ``ds``, by table.

    Raises
    ------
    MissingPartition
        If one is missing.
    """
    return {name: wh.latest(name, until=ds) or wh.partition(name, ds) for name in MODEL_PARTS}


def keep(wh: Warehouse, model: Partition, ds: str) -> None:
    """Leave an earlier day's model in force on ``ds``, also where another run of that day trained one."""
    if ds not in wh.partitions(model.table):
        return
    with wh.write_partition(model.table, ds) as part:
        shutil.copytree(wh.local_copy(model), part.local, dirs_exist_ok=True)
        part.rows, part.info = model.rows, dict(model.info)


def space_version(encoder: Partition, space: Partition) -> str:
    """The ``space_version`` of item vectors made by an encoder and an item space."""
    return hashlib.sha256(f"{encoder.info['version']} {space.info['version']}".encode()).hexdigest()[:16]


def _check_equal(key: str, seen: dict[str, object]) -> None:
    if len({str(value) for value in seen.values()}) > 1:
        shown = ", ".join(f"{name} {value}" for name, value in seen.items())
        raise MixedParts(f"{key}: seen {shown}; allowed: one and the same; run the day's jobs again from the first")


def _name(part: Partition) -> str:
    return f"{part.table}/ds={part.ds}"
