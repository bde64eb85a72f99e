from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hymirec_model.config import ItemSpaceConfig
from hymirec_model.encoder_training import train_item_space
from hymirec_model.item_space import ItemSpace
from hymirec_model.user_side import UserSide
from tests.hymirec_model import planted

ITEMS, UNSEEN, HIDDEN = 60, 12, 20
CONFIG = ItemSpaceConfig(dim=8, steps=24, batch_users=32, window=4, history=12, negatives=64, learning_rate=5e-3)
STATES = 3 + planted.vectors(ITEMS + UNSEEN, HIDDEN, noise=1.0)  # text states share a large mean
STATE_OF_ITEM = np.arange(ITEMS + UNSEEN)
LOG = planted.log(80, ITEMS)


def space(*, residual: bool = True) -> ItemSpace:
    torch.manual_seed(0)
    built = ItemSpace(replace(CONFIG, residual=residual), HIDDEN, ITEMS + UNSEEN)
    built.initialise(STATES, STATE_OF_ITEM, LOG)
    return built


def from_text(built: ItemSpace) -> np.ndarray:
    with torch.no_grad():
        return built.from_text(torch.from_numpy(STATES)).numpy()


def gap(vectors: np.ndarray) -> float:
    """Mean cosine within groups minus that between them."""
    same = np.equal.outer(planted.group_of(len(vectors)), planted.group_of(len(vectors)))
    cosine = vectors @ vectors.T
    return float(cosine[same & ~np.eye(len(vectors), dtype=bool)].mean() - cosine[~same].mean())


def test_items_without_events_stand_where_their_text_says() -> None:
    built = space()
    vectors = built.vectors(STATES, STATE_OF_ITEM)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(vectors[ITEMS:], from_text(built)[ITEMS:], atol=1e-6)
    assert np.abs(vectors[:ITEMS] - from_text(built)[:ITEMS]).max() > 0.05
    assert gap(vectors[:ITEMS]) > gap(from_text(built)[:ITEMS]) > 0.3
    new, old = vectors[ITEMS:], vectors[:ITEMS]
    assert (planted.group_of(ITEMS)[(new @ old.T).argmax(1)] == planted.group_of(UNSEEN)).mean() > 0.9


def test_without_residuals_the_text_decides_all() -> None:
    built = space(residual=False)
    np.testing.assert_array_equal(built.vectors(STATES, STATE_OF_ITEM), from_text(built))


def test_items_that_came_later_are_handled_whatever_the_batch() -> None:
    built = space()
    later = np.concatenate([STATE_OF_ITEM, [0, 5, 5]])
    vectors = built.vectors(STATES, later)
    np.testing.assert_allclose(vectors[-3:], from_text(built)[[0, 5, 5]], atol=1e-6)
    np.testing.assert_allclose(built.vectors(STATES, later, batch=7), vectors, atol=1e-6)


@pytest.mark.parametrize("residual", [True, False])
def test_training_lowers_the_loss_and_reruns_are_equal(residual: bool) -> None:
    curves, spaces = [], []
    for _ in range(2):
        built, losses = space(residual=residual), []
        user_side = UserSide(CONFIG.dim)
        train_item_space(
            built,
            user_side,
            STATES,
            STATE_OF_ITEM,
            LOG,
            built.config,
            lambda step, metrics, losses=losses: losses.append((step, metrics["loss"])),
        )
        curves.append(losses)
        spaces.append(built)
    assert [step for step, _ in curves[0]] == list(range(1, CONFIG.steps + 1))
    assert curves[0] == curves[1]
    values = [loss for _, loss in curves[0]]
    assert np.mean(values[-8:]) < np.mean(values[:8])
    trained = spaces[0].vectors(STATES, STATE_OF_ITEM)
    assert np.array_equal(trained, spaces[1].vectors(STATES, STATE_OF_ITEM))
    assert np.array_equal(trained[ITEMS:], from_text(spaces[0])[ITEMS:]) or residual
    assert not spaces[0].residual.weight[ITEMS:].any(), "an item without events got a residual"


def test_saved_and_loaded_spaces_are_equal_to_the_bit(tmp_path: Path) -> None:
    built = space()
    built.save(tmp_path / "a")
    loaded = ItemSpace.load(tmp_path / "a")
    assert loaded.config == built.config and loaded.items == built.items and not loaded.training
    assert np.array_equal(loaded.vectors(STATES, STATE_OF_ITEM), built.vectors(STATES, STATE_OF_ITEM))
    loaded.save(tmp_path / "b")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
