from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, BertConfig, DistilBertConfig, LlamaConfig, PreTrainedConfig

from hymirec_model import content_encoder
from hymirec_model.config import EncoderConfig, EncoderTrainingConfig, ItemSpaceConfig
from hymirec_model.content_encoder import ContentEncoder
from hymirec_model.devices import embedding_dtype
from hymirec_model.encoder_training import tune_encoder
from hymirec_model.errors import InputError
from hymirec_model.text_passes import last_state_pass
from hymirec_model.weights import resolve
from tests.hymirec_model import planted

KINDS = ["whole milk", "dog food", "red wine", "shampoo", "frozen pizza", "garden hose"]
TEXTS = [f"{KINDS[group]} number {item}" for item, group in enumerate(planted.group_of(24))]


def fresh(tmp_path: Path, **settings: Any) -> ContentEncoder:
    config = EncoderConfig(**settings)
    return ContentEncoder.from_pretrained(config, resolve(config.weights, tmp_path)).eval()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> ContentEncoder:
    return fresh(tmp_path_factory.mktemp("weights"), batch_tokens=60, precision="float32")


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


def test_more_tokens_than_the_model_reads_are_refused_at_once(encoder: ContentEncoder, tmp_path: Path) -> None:
    places = encoder.backbone.config.max_position_embeddings
    (empty,) = encoder.tokenize([""])
    most = places - len(empty) - 1  # the item token
    assert fresh(tmp_path, max_tokens=most).embed(["word " * places]).shape == (1, encoder.hidden)
    with pytest.raises(InputError, match=f"max_tokens is {most + 1}; allowed: up to {most}, because minilm-l6 reads"):
        fresh(tmp_path, max_tokens=most + 1)


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


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(
    "kind",
    [
        BertConfig(hidden_size=32, num_attention_heads=4, intermediate_size=48),
        LlamaConfig(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48),
    ],
    ids=["bert", "llama"],
)
def test_the_fast_pass_gives_the_states_of_the_library(
    kind: PreTrainedConfig, layers: int, encoder: ContentEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind.num_hidden_layers, kind.vocab_size = layers, 30522
    torch.manual_seed(0)
    config = EncoderConfig(batch_tokens=60, precision="float32")
    small = ContentEncoder(config, AutoModel.from_config(kind), encoder.tokenizer).eval()
    torch.nn.init.normal_(small.item_token, std=0.02)
    assert last_state_pass(small.backbone) is not None
    long = "a much longer text about a much longer product, in a large box of "
    texts = [*TEXTS[:6], "", "milk", "milk", f"{long} ten", f"{long} twelve"]
    with torch.inference_mode():
        expected = np.stack([small([tokens])[0].numpy() for tokens in small.tokenize(texts)])
    np.testing.assert_allclose(small.embed(texts), expected, atol=1e-5)
    monkeypatch.setattr(content_encoder, "last_state_pass", lambda backbone: None)
    np.testing.assert_allclose(small.embed(texts), expected, atol=1e-5)


def test_models_of_another_kind_go_through_the_library(encoder: ContentEncoder) -> None:
    other = AutoModel.from_config(DistilBertConfig(dim=16, n_heads=2, n_layers=1, hidden_dim=16, vocab_size=30522))
    assert last_state_pass(other) is None
    states = ContentEncoder(EncoderConfig(), other.eval(), encoder.tokenizer).embed(TEXTS[:3])
    assert states.shape == (3, 16) and np.isfinite(states).all()


def test_bfloat16_keeps_the_direction_of_a_state(encoder: ContentEncoder) -> None:
    half = ContentEncoder(replace(encoder.config, precision="bfloat16"), encoder.backbone, encoder.tokenizer).eval()
    exact, rounded = encoder.embed(TEXTS), half.embed(TEXTS)
    assert not np.array_equal(exact, rounded) and rounded.dtype == np.float32
    cosine = (exact * rounded).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
    assert cosine.min() > 0.999


def test_auto_is_bfloat16_where_the_hardware_computes_in_it() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert embedding_dtype("auto", cuda) == embedding_dtype("bfloat16", cpu) == torch.bfloat16
    assert embedding_dtype("float32", cuda) == torch.float32
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert embedding_dtype("auto", cpu) == (torch.bfloat16 if fast else torch.float32)
