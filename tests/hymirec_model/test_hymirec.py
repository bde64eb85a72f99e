from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from hymirec_model.config import RecommenderConfig
from hymirec_model.errors import InputError
from hymirec_model.histories import AGE_BUCKETS
from hymirec_model.hymirec import START_SCALE, HyMiRec
from hymirec_model.llm_recommender import load_backbone
from hymirec_model.losses import balance_loss, mixture_loss, usage

D, N, K, M, RECENT = 12, 9, 3, 4, 5
CONFIG = LlamaConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    intermediate_size=24,
    vocab_size=7,
)


def model(*, refine: bool = True, interests: int = K) -> HyMiRec:
    torch.manual_seed(0)
    config = RecommenderConfig(
        interests=interests,
        coarse_interests=M,
        history=N,
        recent=RECENT,
        light_width=16,
        refine=refine,
    )
    built = HyMiRec(config, D, LlamaModel(CONFIG)).eval()
    built.llm.backbone.set_input_embeddings(torch.nn.Embedding(1, 16).requires_grad_(False))
    return built


def inputs(lengths: list[int], columns: int = N, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors, ages and mask; a user's events are the same whatever the padding and the neighbours."""
    vectors, ages = torch.zeros(len(lengths), columns, D), torch.zeros(len(lengths), columns, dtype=torch.long)
    mask = torch.zeros(len(lengths), columns, dtype=torch.bool)
    for row, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(seed + length)
        events = F.normalize(torch.randn(length, D, generator=generator), dim=-1)
        if length:
            vectors[row, -length:] = events
            ages[row, -length:] = torch.randint(AGE_BUCKETS, (length,), generator=generator).sort(descending=True)[0]
            mask[row, -length:] = True
    return vectors, ages, mask


@pytest.mark.parametrize("refine", [True, False])
def test_interests_are_unit_vectors_also_of_an_empty_history(refine: bool) -> None:
    coarse, interests = model(refine=refine)(*inputs([0, 1, 4, N]))
    assert coarse.shape == (4, M, D) and interests.shape == (4, K, D)
    for found in (coarse, interests):
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found.norm(dim=-1), torch.ones(found.shape[:2]))


@torch.no_grad()
def disturbed(refine: bool) -> HyMiRec:
    """A model whose every part has a say; at the start the refinement's is zero."""
    built = model(refine=refine)
    for parameter in built.parameters():
        parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    return built


@pytest.mark.parametrize("refine", [True, False])
def test_a_user_alone_or_among_longer_ones_is_the_same(refine: bool) -> None:
    built = disturbed(refine)
    lengths = [2, 0, N, 4, 7]
    together = built(*inputs(lengths))
    for row, length in enumerate(lengths):
        alone = built(*inputs([length], max(1, length)))
        for found, expected in zip(alone, together, strict=True):
            torch.testing.assert_close(found[0], expected[row], atol=1e-5, rtol=0)


def test_what_stands_under_the_mask_does_not_matter() -> None:
    built = disturbed(True)
    vectors, ages, mask = inputs([3, 6])
    noise = torch.where(mask[..., None], vectors, 5.0)
    for found, expected in zip(built(noise, torch.where(mask, ages, 7), mask), built(vectors, ages, mask), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_old_events_reach_the_interests_through_the_light_recommender_alone() -> None:
    built = disturbed(True)
    vectors, ages, mask = inputs([N])
    changed = vectors.clone()
    changed[0, 0] = -changed[0, 0]
    coarse, _ = built(vectors, ages, mask)
    other, _ = built(changed, ages, mask)
    assert not torch.allclose(coarse, other)
    fixed = built.llm(coarse, vectors, ages, mask), built.llm(coarse, changed, ages, mask)
    assert torch.equal(*fixed)
    changed[0, -1] = -changed[0, -1]
    assert not torch.allclose(built.llm(coarse, changed, ages, mask), fixed[0])


def test_refinement_starts_as_a_mixture_of_coarse_interests() -> None:
    coarse, interests = model()(*inputs([5, 8]))
    owner = torch.arange(M) % K
    expected = torch.stack([F.normalize(coarse[:, owner == k].mean(1), dim=-1) for k in range(K)], 1)
    torch.testing.assert_close(interests, expected)


def test_a_correction_of_nothing_costs_no_pass_of_the_llm_and_changes_no_bit() -> None:
    built, given = model(), inputs([5, 8])
    passes: list[int] = []
    built.llm.backbone.register_forward_hook(lambda *_: passes.append(1))
    _, whole = built(*given)
    with torch.no_grad():
        _, skipped = built(*given)
        assert len(passes) == 1 and torch.equal(skipped, whole)
        built.llm.write.bias[0] = 0.1
        _, corrected = built(*given)
    assert len(passes) == 2 and not torch.allclose(corrected, whole)


def test_more_interests_than_coarse_ones() -> None:
    _, interests = model(interests=M + 2)(*inputs([5]))
    torch.testing.assert_close(interests.norm(dim=-1), torch.ones(1, M + 2))


@pytest.mark.parametrize("refine", [True, False])
def test_every_parameter_is_trained(refine: bool) -> None:
    built = model(refine=refine).train()
    before = {name: parameter.detach().clone() for name, parameter in built.named_parameters()}
    optimizer = torch.optim.SGD([p for p in built.parameters() if p.requires_grad], lr=1.0)
    targets, negatives = (F.normalize(torch.randn(*shape, D), dim=-1) for shape in ((5, 3), (11,)))
    mask, false = torch.ones(5, 3, dtype=torch.bool), torch.zeros(5, 3, 11, dtype=torch.bool)
    vectors, _, valid = inputs([0, 2, 5, N, 7])
    for start in (0, 1):  # the refinement's writing head starts at zero: what is behind it moves from the second step
        ages = torch.arange(start, start + 5 * N).view(5, N) % AGE_BUCKETS
        optimizer.zero_grad()
        coarse, interests = built(vectors, ages, valid)
        args = (targets, mask, negatives, false, built.scale, torch.zeros(11))
        share = usage(interests, targets, mask, built.scale)
        (mixture_loss(interests, *args) + 0.5 * mixture_loss(coarse, *args) + balance_loss(share)).backward()
        optimizer.step()
    frozen = {name for name, parameter in built.named_parameters() if not parameter.requires_grad}
    assert frozen == {"llm.backbone.embed_tokens.weight"}
    for name, parameter in built.named_parameters():
        assert torch.equal(before[name], parameter) == (name in frozen), name
        assert torch.isfinite(parameter).all(), name


@pytest.mark.parametrize("refine", [True, False])
def test_saved_and_loaded_models_are_equal_to_the_bit(tmp_path: Path, refine: bool) -> None:
    built = disturbed(refine).eval()
    built.save(tmp_path / "a")
    loaded = HyMiRec.load(tmp_path / "a")
    assert loaded.config == built.config and not loaded.training
    for found, expected in zip(loaded(*inputs([0, 3, N])), built(*inputs([0, 3, N])), strict=True):
        assert torch.equal(found, expected)
    loaded.save(tmp_path / "b")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_vectors_of_another_length_are_refused() -> None:
    vectors, ages, mask = inputs([3])
    with pytest.raises(InputError, match="seen vectors of length 11; allowed: 12"):
        model()(vectors[..., :-1], ages, mask)


def test_scale_stays_within_bounds() -> None:
    built = model()
    assert built.scale.item() == pytest.approx(START_SCALE)
    for value, expected in ((-3.0, 1.0), (9.0, 100.0)):
        torch.nn.init.constant_(built.log_scale, value)
        assert built.scale.item() == pytest.approx(expected, rel=1e-4)


def test_first_layers_of_a_backbone(tmp_path: Path) -> None:
    whole = LlamaModel(CONFIG)
    whole.save_pretrained(tmp_path)
    assert len(load_backbone(str(tmp_path), 0).layers) == 2
    first = load_backbone(str(tmp_path), 1)
    assert len(first.layers) == 1 and first.get_input_embeddings().weight.shape == (1, 16)
    assert torch.equal(first.layers[0].mlp.up_proj.weight, whole.layers[0].mlp.up_proj.weight)
    with pytest.raises(InputError, match="backbone_layers is 3; allowed: 0"):
        load_backbone(str(tmp_path), 3)
