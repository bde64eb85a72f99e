"""A log in which every user keeps to one or two groups of items, and texts, states and vectors that tell the groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hymirec_model.histories import Histories

GROUPS = 6


def group_of(items: int) -> npt.NDArray[np.int64]:
    """Group of each item."""
    return np.arange(items) % GROUPS


def log(users: int, items: int, length: int = 24, seed: int = 0) -> Histories:
    """Histories; users change between their two groups every few events."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(group_of(items) == group) for group in range(GROUPS)]
    rows = []
    for _ in range(users):
        pair = rng.choice(GROUPS, 2, replace=False)
        rows.append([rng.choice(members[pair[(step // 4) % 2]]) for step in range(length)])
    stamps = np.tile(1_600_000_000 + 86_400 * np.arange(length), users)
    ids = np.array([f"user-{user:04d}" for user in range(users)], object)
    return Histories(ids, np.arange(users + 1) * length, np.array(rows, np.int64).ravel(), stamps)


def vectors(items: int, dim: int, noise: float = 0.3, seed: int = 0) -> npt.NDArray[np.float32]:
    """Unit vectors near their group's centre."""
    rng = np.random.default_rng(seed)
    found = np.eye(dim)[group_of(items)] + noise * rng.normal(size=(items, dim)) / dim**0.5
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)
