"""Low-rank tuning, gradient checkpointing and bfloat16, on a model that reads both ways and on a causal one."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, LlamaConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from hymirec_model.config import EncoderConfig, EncoderTrainingConfig, ItemSpaceConfig
from hymirec_model.content_encoder import ContentEncoder
from hymirec_model.devices import training_dtype
from hymirec_model.encoder_training import tune_encoder
from hymirec_model.errors import InputError
from hymirec_model.weights import resolve
from hymirec_model.window_sampler import WindowSampler
from tests.hymirec_model import planted

KINDS = ["whole milk", "dog food", "red wine", "shampoo", "frozen pizza", "garden hose"]
TEXTS = [f"{KINDS[group]} number {item}" for item, group in enumerate(planted.group_of(24))]
LOG = planted.log(12, 24)
CONFIG = EncoderTrainingConfig(
    pool_items=20,
    head_steps=2,
    steps=2,
    batch_users=3,
    window=2,
    history=4,
    negatives=6,
    backbone_learning_rate=1e-3,
)
SPACE = ItemSpaceConfig(dim=4, batch_users=4, window=2)
SMALL = {
    "bert": BertConfig(num_hidden_layers=2, hidden_size=32, num_attention_heads=4, intermediate_size=48),
    "llama": LlamaConfig(  # SmolLM2's kind
        num_hidden_layers=2, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48
    ),
}
Weights = dict[str, torch.Tensor]


@pytest.fixture(params=["bert", "llama"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def small(kind: str) -> ContentEncoder:
    """An encoder with random weights, always the same."""
    torch.manual_seed(0)
    SMALL[kind].vocab_size = 30522
    backbone = AutoModel.from_config(SMALL[kind])
    if kind == "bert":
        backbone.pooler = None
    tokenizer = AutoTokenizer.from_pretrained(resolve("minilm-l6", Path()))
    return ContentEncoder(EncoderConfig(precision="float32"), backbone, tokenizer).eval()


def minilm() -> ContentEncoder:
    config = EncoderConfig(backbone_layers=1, precision="float32")
    return ContentEncoder.from_pretrained(config, resolve("minilm-l6", Path())).eval()


def tune(encoder: ContentEncoder, config: EncoderTrainingConfig = CONFIG) -> list[dict[str, float]]:
    found: list[dict[str, float]] = []
    tune_encoder(encoder, TEXTS, LOG, SPACE, config, lambda step, metrics: found.append(metrics) if step > 0 else None)
    return found


def test_nothing_is_learnt_from_what_stage_2_is_validated_on() -> None:
    sampler = WindowSampler(LOG, batch_users=3, history=4, window=2, seed=0, held=512)
    last_two = np.arange(len(LOG.items)) % 24 >= 22
    held = np.concatenate([batch.targets_BW.ravel().numpy() for batch in sampler.held_windows()])
    assert sorted(held) == sorted(LOG.items[last_two])
    other = replace(LOG, items=np.where(last_two, (LOG.items + 1) % 24, LOG.items))
    ends = []
    for log in (LOG, other):
        encoder = small("bert")
        tune_encoder(encoder, TEXTS, log, SPACE, CONFIG, lambda *_: None)
        ends.append(copied(encoder))
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name]), name


def copied(encoder: ContentEncoder) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in encoder.state_dict().items()}


def while_adapted(name: str, tuned: Weights) -> torch.Tensor:
    """Where a weight is while a low-rank update stands beside it."""
    name = name.replace("backbone.", "backbone.base_model.model.")
    stem, _, leaf = name.rpartition(".")
    return tuned[name] if name in tuned else tuned[f"{stem}.base_layer.{leaf}"]


@pytest.mark.parametrize("model", ["minilm", "llama"])
def test_low_rank_tuning_moves_updates_alone_which_become_part_of_the_weights(model: str) -> None:
    encoder = minilm() if model == "minilm" else small(model)
    before, original = copied(encoder), encoder.embed(TEXTS)
    linear = sum(isinstance(part, torch.nn.Linear) for part in encoder.backbone.modules())
    tokens, unmerged = encoder.tokenize(TEXTS[:6]), []

    def look(step: int, metrics: dict[str, float]) -> None:
        if step == CONFIG.steps:
            tuned = copied(encoder)
            moved = {name for name, tensor in before.items() if not torch.equal(while_adapted(name, tuned), tensor)}
            assert moved == {"item_token"}
            updates = [name for name in tuned if "lora_B" in name]
            assert len(updates) == linear and all(tuned[name].any() for name in updates)
            encoder.eval()
            with torch.no_grad():
                unmerged.append(encoder(tokens).numpy())

    tune_encoder(encoder, TEXTS, LOG, SPACE, replace(CONFIG, lora_rank=2), look)
    assert copied(encoder).keys() == before.keys() and all(p.requires_grad for p in encoder.parameters())
    with torch.no_grad():
        np.testing.assert_allclose(encoder(tokens).numpy(), unmerged[0], atol=1e-4 * np.abs(unmerged[0]).max())
    assert np.abs(encoder.embed(TEXTS) - original).max() > 1e-3


def test_what_was_tuned_by_low_rank_is_saved_as_a_plain_model(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = small(kind)
    tune(encoder, replace(CONFIG, lora_rank=2))
    encoder.save(tmp_path / "encoder")
    monkeypatch.setitem(sys.modules, "peft", None)  # to import it is an error now
    loaded = ContentEncoder.load(tmp_path / "encoder")
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert np.array_equal(loaded.embed(TEXTS), encoder.embed(TEXTS))


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_checkpointing_computes_layers_again_and_gives_the_same_gradients(kind: str, lora_rank: int) -> None:
    gradients: list[Weights] = []
    calls = []
    for checkpointing in (False, True):
        encoder, count, caught = small(kind), [], {}
        for part in encoder.backbone.modules():
            if isinstance(part, GradientCheckpointingLayer):
                first = next(inner for inner in part.modules() if isinstance(inner, torch.nn.Linear))
                first.register_forward_pre_hook(lambda own, _, count=count: count.append(1) if own.training else None)

        def look(step: int, _: object, encoder: ContentEncoder = encoder, caught: Weights = caught) -> None:
            caught.update({name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None})

        config = replace(CONFIG, steps=1, lora_rank=lora_rank, gradient_checkpointing=checkpointing)
        tune_encoder(encoder, TEXTS, LOG, SPACE, config, look)
        gradients.append(caught)
        calls.append(len(count))
        assert not encoder.backbone.is_activation_checkpointing
    assert calls == [2, 4]
    plain, again = gradients
    assert plain.keys() == again.keys() and len(plain) > 10
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_models_that_cannot_be_checkpointed_are_refused() -> None:
    encoder = small("bert")
    encoder.backbone.supports_gradient_checkpointing = False
    with pytest.raises(InputError, match="seen true with a model of type bert, which cannot; allowed: false"):
        tune(encoder, replace(CONFIG, gradient_checkpointing=True))


def test_bfloat16_rounds_products_and_leaves_weights_in_float32(kind: str) -> None:
    exact, rounded = tune(small(kind)), small(kind)
    found = tune(rounded, replace(CONFIG, precision="bfloat16"))
    assert found != exact and found[0]["loss"] == pytest.approx(exact[0]["loss"], rel=0.02)
    assert {tensor.dtype for tensor in rounded.state_dict().values() if tensor.is_floating_point()} == {torch.float32}


def test_auto_trains_in_bfloat16_on_cuda_alone() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert training_dtype("auto", cuda) == training_dtype("bfloat16", cpu) == torch.bfloat16
    assert training_dtype("auto", cpu) == training_dtype("float32", cuda) == torch.float32


def test_targets_of_other_users_join_the_negatives() -> None:
    alone, beside = (tune(small("bert"), replace(CONFIG, in_batch_negatives=own)) for own in (False, True))
    assert alone[0]["loss"] != beside[0]["loss"]


def test_a_rank_below_zero_is_refused() -> None:
    with pytest.raises(InputError, match="lora_rank is -1; allowed: 0 or more"):
        EncoderTrainingConfig(lora_rank=-1)
