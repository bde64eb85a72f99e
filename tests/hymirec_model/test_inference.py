from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hymirec_model.errors import InputError
from hymirec_model.inference import UserModel, calibration_sample, infer, interest_weights
from tests.small_day import DIM
from tests.small_model import NOW, codebook, histories, recommender


@pytest.fixture(scope="module")
def model() -> UserModel:
    book, vectors = codebook(200)
    generations, codes = book.encode_best(vectors)
    return UserModel(recommender(), book.to_module(), codes, generations)


def test_interests_are_the_models_own(model: UserModel) -> None:
    users = histories(7, n_items=200)
    interests = model.interests(users, NOW)
    assert interests.shape == (7, model.model.config.interests, DIM) and interests.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(interests, axis=2), 1, atol=1e-5)
    alone = model.interests(users, NOW, np.array([4]))
    np.testing.assert_allclose(alone[0], interests[4], atol=1e-5)  # padding changes nothing
    halves = infer(model.model, model.code_table, model.codes, model.generations, users, np.arange(7), NOW, batch=3)
    np.testing.assert_allclose(halves, interests, atol=1e-5)
    assert np.array_equal(model.interests(users, NOW), interests)


def test_saved_folders_give_the_same(model: UserModel, tmp_path: Path) -> None:
    model.model.save(tmp_path / "recommender")
    codebook(200)[0].save(tmp_path / "codebook")
    loaded = UserModel.load(tmp_path / "recommender", tmp_path / "codebook", model.codes, model.generations)
    users = histories(3, n_items=200)
    assert np.array_equal(loaded.interests(users, NOW), model.interests(users, NOW))
    assert (loaded.merge, loaded.scale) == (model.merge, model.scale)


def test_item_without_codes_is_named(model: UserModel) -> None:
    with pytest.raises(InputError, match="seen item_index 4999; allowed: 0 to 199"):
        model.interests(histories(1, n_items=200, extra=4999), NOW)


def test_weights_are_ones_unless_calibrated() -> None:
    rng = np.random.default_rng(0)
    interests = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(5, 3, DIM))).float(), dim=2).numpy()
    sample = interests.reshape(-1, DIM)
    assert (interest_weights(interests, "lse", 9.0, sample) == 1).all()
    weights = interest_weights(interests, "calibrated", 9.0, sample)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert weights.std() > 0
    assert len(np.unique(calibration_sample(9999))) == 512 and calibration_sample(3).tolist() == [0, 1, 2]
