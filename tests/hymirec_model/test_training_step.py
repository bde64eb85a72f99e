"""A batch read in parts has the loss and the gradient of the whole batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from hymirec_model.errors import InputError
from tests.hymirec_model.small_training import IDLE, SHARED, Curve, Objective, train

ONE_EACH = {
    "light": replace(SHARED, light_steps=1, steps=1, clip_norm=1e9, balance_loss=1.0),
    "llm": replace(SHARED, light_steps=0, steps=1, clip_norm=1e9, balance_loss=1.0),
}


def gradients(
    objective: Objective, phase: str, parts: int, precision: Literal["float32", "bfloat16"] = "float32"
) -> tuple[Curve, dict[str, Tensor]]:
    config = replace(ONE_EACH[phase], accumulation=parts, precision=precision)
    _, curve, model = train(objective, config)
    return curve, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def furthest(ours: dict[str, Tensor], whole: dict[str, Tensor]) -> float:
    """Largest difference, as a share of each parameter's largest gradient, where that is more than rounding."""
    assert ours.keys() == whole.keys()
    return max(
        float((ours[name] - tensor).abs().max() / tensor.abs().max())
        for name, tensor in whole.items()
        if not name.endswith(IDLE)
    )


@pytest.mark.parametrize("objective", ["mixture", "dmil"])
@pytest.mark.parametrize("parts", [4, 15])
def test_gradients_are_those_of_the_whole_batch(objective: Objective, parts: int) -> None:
    """Of 15 users, whose windows differ in targets, so that the mean of the parts' means would be another loss."""
    curve, whole = gradients(objective, "llm", 1)
    same_curve, ours = gradients(objective, "llm", parts)
    for (step, metrics), (same_step, same) in zip(curve, same_curve, strict=True):
        assert step == same_step and same == pytest.approx(metrics, rel=1e-5)
    assert furthest(ours, whole) < 1e-5
    assert {"log_scale", "light.write.weight", "llm.queries"} <= whole.keys()


def test_the_light_recommender_alone_is_read_in_parts_too() -> None:
    curve, whole = gradients("mixture", "light", 1)
    same_curve, ours = gradients("mixture", "light", 4)
    assert same_curve[0][1] == pytest.approx(curve[0][1], rel=1e-5)
    assert furthest(ours, whole) < 1e-3  # of the second step, after one of Adam, which scales rounding up


def test_in_bfloat16_parts_have_a_gradient_too() -> None:
    """Weights that autocast has cast without a graph must not reach the pass that needs one."""
    _, whole = gradients("mixture", "llm", 1, "bfloat16")
    _, ours = gradients("mixture", "llm", 4, "bfloat16")
    for name in ("llm.write.weight", "light.write.weight"):
        assert float(whole[name].abs().max()) > 0
        torch.testing.assert_close(ours[name], whole[name], rtol=0.05, atol=0.05 * float(whole[name].abs().max()))


def test_more_parts_than_users_are_refused() -> None:
    with pytest.raises(InputError, match="accumulation is 16; allowed: 1 to batch_users, which is 15"):
        replace(SHARED, accumulation=16)
