from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hymirec_model.config import EncoderConfig, EncoderTrainingConfig, ItemSpaceConfig
from hymirec_model.content_encoder import ContentEncoder
from hymirec_model.encoder_training import tune_encoder
from hymirec_model.errors import InputError
from hymirec_model.weights import resolve
from tests.hymirec_model import planted

KINDS = ["whole milk", "dog food", "red wine", "shampoo", "frozen pizza", "garden hose"]
TEXTS = [f"{KINDS[group]} number {item}" for item, group in enumerate(planted.group_of(24))]


def fresh(tmp_path: Path, **settings: int) -> ContentEncoder:
    config = EncoderConfig(**settings)
    return ContentEncoder.from_pretrained(config, resolve(config.weights, tmp_path)).eval()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ContentEncoder:
    return fresh(tmp_path_factory.mktemp("weights"), batch_tokens=60)


def test_states_do_not_depend_on_order_or_neighbours(encoder: ContentEncoder) -> None:
    texts = [*TEXTS[:8], "", "a much longer text about a much longer product, in a large box of twelve"]
    done: list[int] = []
    states = encoder.embed(texts, done.append)
    assert states.shape == (10, encoder.hidden) and states.dtype == np.float32
    assert sum(done) == 10 and len(done) > 1
    order = np.random.default_rng(0).permutation(10)
    np.testing.assert_allclose(encoder.embed([texts[i] for i in order]), states[order], atol=1e-5)
    np.testing.assert_allclose(encoder.embed(texts[8:9])[0], states[8], atol=1e-5)
    apart = np.linalg.norm(states[:, None] - states, axis=-1)[~np.eye(10, dtype=bool)]
    assert apart.min() > 1e-2


def test_long_texts_are_cut(encoder: ContentEncoder) -> None:
    long = " ".join(["cheese"] * encoder.config.max_tokens)
    short, cut, same = encoder.tokenize(["cheese", long + " and wine", long])
    assert cut == same and len(cut) == len(short) - 1 + encoder.config.max_tokens
    assert cut[-len(short) + 2 :] == short[2:], "the closing prompt was cut off"


def test_tuning_moves_everything_and_is_saved(tmp_path: Path) -> None:
    encoder = fresh(tmp_path)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    config = EncoderTrainingConfig(
        pool_items=20, head_steps=3, steps=1, batch_users=3, window=2, history=4, negatives=6
    )
    steps: list[int] = []
    space = ItemSpaceConfig(dim=4, batch_users=4, window=2)
    tune_encoder(encoder, TEXTS, planted.log(12, 24), space, config, lambda step, _: steps.append(step))
    assert steps == [-3, -2, -1, 1] and not encoder.training
    after = encoder.state_dict()
    for name in ("item_token", "backbone.encoder.layer.0.attention.self.query.weight"):
        assert not torch.equal(before[name], after[name]), name
    encoder.save(tmp_path / "encoder")
    loaded = ContentEncoder.load(tmp_path / "encoder")
    assert loaded.config == encoder.config
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, after[name]), name
    assert np.array_equal(loaded.embed(TEXTS[:3]), encoder.embed(TEXTS[:3]))


def test_unknown_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weights 'minilm': not a known name; allowed: minilm-l6, smollm2-135m"):
        resolve("minilm", tmp_path)
    assert resolve(str(tmp_path), tmp_path) == str(tmp_path)
    assert resolve("owner/name", tmp_path) == "owner/name"
