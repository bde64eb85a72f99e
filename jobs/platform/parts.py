"""The parts of a release: which tables they are, and whether they were made from one another."""

from __future__ import annotations

import hashlib

from jobs.platform.errors import JobError
from jobs.platform.warehouse import Partition, Warehouse

MODEL_PARTS = ("encoder", "item_space", "recommender", "codebook")
DAY_PARTS = ("catalog", "item_vectors", "item_codes", "interests", "index", "evaluation")
_SHARED = (
    ("space_version", ("item_vectors", "item_codes", "codebook", "recommender", "index")),
    ("book", ("codebook", "item_codes")),
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
    parts = {name: wh.partition(name, ds) for name in DAY_PARTS}
    for name in MODEL_PARTS:
        found = wh.latest(name, until=ds)
        parts[name] = found if found is not None else wh.partition(name, ds)
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


def space_version(encoder: Partition, space: Partition) -> str:
    """The ``space_version`` of item vectors made by an encoder and an item space."""
    return hashlib.sha256(f"{encoder.info['version']} {space.info['version']}".encode()).hexdigest()[:16]


def _check_equal(key: str, seen: dict[str, object]) -> None:
    if len(set(seen.values())) > 1:
        shown = ", ".join(f"{name} {value}" for name, value in seen.items())
        raise MixedParts(f"{key}: seen {shown}; allowed: one and the same; run the day's jobs again from the first")


def _name(part: Partition) -> str:
    return f"{part.table}/ds={part.ds}"
