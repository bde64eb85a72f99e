from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hymirec_model import collaborative
from hymirec_model.config import ItemSpaceConfig
from hymirec_model.encoder_training import train_item_space
from hymirec_model.histories import newest_batch
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


IMAGES = planted.vectors(ITEMS + UNSEEN, 10, noise=0.5, seed=1).astype(np.float16)
NO_TASTE = np.random.default_rng(2).normal(size=(ITEMS + UNSEEN, HIDDEN)).astype(np.float32)  # of such texts


def trained(images: np.ndarray | None, texts: np.ndarray = NO_TASTE) -> tuple[ItemSpace, UserSide]:
    torch.manual_seed(0)
    built = ItemSpace(CONFIG, HIDDEN, ITEMS + UNSEEN, 0 if images is None else images.shape[1])
    built.initialise(texts, STATE_OF_ITEM, LOG, images)
    torch.manual_seed(0)
    side = UserSide(CONFIG.dim, recency=CONFIG.recency)
    train_item_space(built, side, texts, STATE_OF_ITEM, LOG, CONFIG, lambda step, metrics: None, images=images)
    return built.eval(), side.eval()


def new_items_found(images: np.ndarray | None) -> float:
    """Share of the four nearest items that nobody has taken yet which are of a user's two groups: 1/3 by chance."""
    built, side = trained(images)
    vectors = torch.from_numpy(built.vectors(NO_TASTE, STATE_OF_ITEM, images=images))
    batch = newest_batch(LOG, np.arange(len(LOG)), CONFIG.history)
    with torch.no_grad():
        user_B1d = side.light(vectors[batch.items_BN], batch.ages_BN, batch.mask_BN)
    nearest = (user_B1d[:, 0] @ vectors[ITEMS:].T).topk(4).indices.numpy()
    groups = planted.group_of(ITEMS)[LOG.items.reshape(len(LOG), -1)]
    liked = [np.isin(planted.group_of(UNSEEN)[row], own).mean() for row, own in zip(nearest, groups, strict=True)]
    return float(np.mean(liked))


def test_images_that_tell_the_taste_find_new_items_where_texts_do_not() -> None:
    blind, seeing = new_items_found(None), new_items_found(IMAGES)
    assert blind < 0.4 and seeing > 0.6


def test_items_without_an_image_lie_where_their_text_says_as_if_nobody_had_one() -> None:
    some = IMAGES.copy()
    some[::2] = 0
    torch.manual_seed(0)
    built, plain = ItemSpace(CONFIG, HIDDEN, ITEMS + UNSEEN, some.shape[1]), space()
    built.initialise(STATES, STATE_OF_ITEM, LOG, some)
    vectors, known = built.vectors(STATES, STATE_OF_ITEM, images=some), plain.vectors(STATES, STATE_OF_ITEM)
    bare = ~some.any(1)
    assert np.array_equal(vectors[bare], known[bare])
    assert np.abs(vectors - known)[~bare].max(1).min() > 1e-3
    assert np.array_equal(built.vectors(STATES, STATE_OF_ITEM)[ITEMS:], from_text(built)[ITEMS:])
    np.testing.assert_allclose(built.vectors(STATES, STATE_OF_ITEM, 7, some), vectors, atol=1e-6)


def test_equal_texts_with_other_images_lie_apart() -> None:
    built, _ = trained(IMAGES)
    same_text = np.zeros(ITEMS + UNSEEN, np.int64)
    new = built.vectors(NO_TASTE, same_text, images=IMAGES)[ITEMS:]
    apart = np.linalg.norm(new[:, None] - new, axis=-1)[~np.eye(UNSEEN, dtype=bool)]
    assert apart.min() > 1e-3 and gap(new) > 0.1


def test_images_that_nobody_has_taken_change_nothing() -> None:
    late = IMAGES.copy()
    late[:ITEMS] = 0
    built, _ = trained(late)
    plain, _ = trained(None)
    without = plain.vectors(NO_TASTE, STATE_OF_ITEM)
    np.testing.assert_allclose(built.vectors(NO_TASTE, STATE_OF_ITEM, images=late), without, atol=1e-5)


def test_spaces_with_images_are_saved_and_loaded_to_the_bit(tmp_path: Path) -> None:
    built, _ = trained(IMAGES)
    built.save(tmp_path)
    loaded = ItemSpace.load(tmp_path)
    assert loaded.image == IMAGES.shape[1]
    given = {"states": NO_TASTE, "state_of_item": STATE_OF_ITEM, "images": IMAGES}
    assert np.array_equal(loaded.vectors(**given), built.vectors(**given))


def test_of_a_long_log_items_outside_of_the_counted_sample_lie_where_their_text_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items, config = 300, replace(CONFIG, validation_users=0)
    states, log = 3 + planted.vectors(items, HIDDEN, noise=1.0), planted.log(200, items, length=6)
    most = len(log.items) // 5
    built, of_sample = ItemSpace(config, HIDDEN, items), ItemSpace(config, HIDDEN, items)
    of_sample.initialise(states, np.arange(items), collaborative._sample(log, most, config.seed))
    monkeypatch.setattr(collaborative, "MOST_PAIRS", most * config.near)
    built.initialise(states, np.arange(items), log)
    assert torch.equal(built.head.weight, of_sample.head.weight), "items that are not counted draw the texts nowhere"
    outside = np.bincount(log.items, minlength=items).astype(bool) & ~built.residual.weight.detach().numpy().any(1)
    assert 50 < outside.sum() < items
    from_text_alone = built.from_text(torch.from_numpy(states[outside])).detach().numpy()
    np.testing.assert_array_equal(built.vectors(states, np.arange(items))[outside], from_text_alone)
