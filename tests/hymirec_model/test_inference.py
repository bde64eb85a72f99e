from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hymirec_model import inference
from hymirec_model.errors import InputError
from hymirec_model.inference import Floats, UserModel, calibration_sample, interest_weights
from tests.small_day import DIM
from tests.small_model import codebook, histories, recommender


@cache
def small_model() -> UserModel:
    book, vectors = codebook(200)
    generations, codes = book.encode_best(vectors)
    return UserModel(recommender(), book.to_module(), codes, generations)


@cache
def small_interests() -> Floats:
    return small_model().interests(histories(70, n_items=200))


@pytest.fixture
def model() -> UserModel:
    return small_model()


def test_interests_are_the_models_own(model: UserModel) -> None:
    users = histories(7, n_items=200)
    interests = model.interests(users)
    assert interests.shape == (7, model.model.config.interests, DIM) and interests.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(interests, axis=2), 1, atol=1e-5)
    assert np.array_equal(model.interests(users), interests)


@given(st.permutations(range(70)), st.integers(1, 70))
@settings(max_examples=15, deadline=None)
def test_interests_do_not_depend_on_the_other_users(order: list[int], count: int) -> None:
    model, users = small_model(), histories(70, n_items=200)
    chosen = np.array(order[:count])
    assert np.array_equal(model.interests(users, chosen), small_interests()[chosen])
    assert np.array_equal(model.interests(users.of_users(chosen)), small_interests()[chosen])


def test_padding_changes_nothing_but_the_last_bits(model: UserModel, monkeypatch: pytest.MonkeyPatch) -> None:
    users = histories(40, n_items=200)
    interests = model.interests(users)
    monkeypatch.setattr(inference, "SHORTEST", 1)
    monkeypatch.setattr(inference, "BATCH", 3)
    np.testing.assert_allclose(model.interests(users), interests, atol=1e-5)


def test_ages_count_from_the_day_of_the_newest_event_unless_told(model: UserModel) -> None:
    users = histories(5, n_items=200)
    newest = users.timestamps[users.offsets[1:] - 1]
    ends = (newest // 86_400 + 1) * 86_400
    interests = model.interests(users)
    assert np.array_equal(model.interests(users, now=ends), interests)
    assert np.abs(model.interests(users, now=ends + 300 * 86_400) - interests).max() > 1e-4


def test_saved_folders_give_the_same(model: UserModel, tmp_path: Path) -> None:
    model.model.save(tmp_path / "recommender")
    codebook(200)[0].save(tmp_path / "codebook")
    loaded = UserModel.load(tmp_path / "recommender", tmp_path / "codebook", model.codes, model.generations)
    users = histories(3, n_items=200)
    assert np.array_equal(loaded.interests(users), model.interests(users))
    assert (loaded.merge, loaded.scale) == (model.merge, model.scale)


def test_codes_that_are_bytes_are_not_copied(model: UserModel) -> None:
    """A catalogue's are handed over for every bucket of users."""
    codes, generations = model.codes.astype(np.uint8), model.generations.astype(np.uint8)
    known, which = model.code_table.checked(codes, generations)
    assert np.shares_memory(known, codes) and np.shares_memory(which, generations)


def test_item_without_codes_is_named(model: UserModel) -> None:
    with pytest.raises(InputError, match="seen item_index 4999; allowed: 0 to 199"):
        model.interests(histories(1, n_items=200, extra=4999))


def test_weights_are_ones_unless_calibrated() -> None:
    rng = np.random.default_rng(0)
    interests = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(5, 3, DIM))).float(), dim=2).numpy()
    sample = interests.reshape(-1, DIM)
    assert (interest_weights(interests, "lse", 9.0, sample) == 1).all()
    weights = interest_weights(interests, "calibrated", 9.0, sample)
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-5)
    assert weights.std() > 0
    assert len(np.unique(calibration_sample(9999))) == 512 and calibration_sample(3).tolist() == [0, 1, 2]
