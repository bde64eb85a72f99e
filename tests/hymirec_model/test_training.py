from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hymirec_model.habits import NONE, Habits
from hymirec_model.histories import DAY_SECONDS, Histories
from hymirec_model.llm_recommender import LLMRecommender
from hymirec_model.popularity_shift import NO_SHIFT, Shift
from tests.hymirec_model import planted
from tests.hymirec_model.small_training import CONFIG, ITEMS, LOG, Objective, train


def test_validation_loss_falls_and_reruns_are_equal_to_the_bit() -> None:
    untrained, _, _ = train(config=replace(CONFIG, light_steps=0, steps=1, learning_rate=1e-9))
    figures, curve, model = train()
    again, same_curve, same_model = train()
    assert figures["validation_loss"] < untrained["validation_loss"] - 0.3
    assert figures["validation_coarse_loss"] < untrained["validation_coarse_loss"] - 0.3
    assert 0.5 <= figures["validation_largest_interest_share"] < 1
    assert [step for step, _ in curve] == list(range(1, CONFIG.light_steps + CONFIG.steps + 1))
    assert "scale" not in curve[CONFIG.light_steps - 1][1] and "scale" in curve[CONFIG.light_steps][1]
    assert (figures, curve) == (again, same_curve)
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, same_model.state_dict()[name]), name


def test_a_phase_that_makes_retrieval_worse_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hymirec_model.validation.LIST", 8)  # of 90 items
    hasty = replace(CONFIG, learning_rate=1.0, backbone_learning_rate=1.0)
    figures, _, undone = train(config=hasty)
    assert figures["validation_recall_after_light"] > figures["validation_recall_before_light"]
    assert figures["validation_recall_after_llm"] < figures["validation_recall_before_llm"]
    _, _, model = train(config=replace(hasty, steps=0))
    for name, tensor in undone.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_a_phase_stops_when_the_recall_no_longer_rises_and_keeps_its_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hymirec_model.validation.LIST", 8)
    config = replace(CONFIG, learning_rate=0.05, backbone_learning_rate=0.05, validate_steps=3, patience=2)
    figures, curve, _ = train(config=config)
    by_step = {step: metrics["validation_recall"] for step, metrics in curve if "validation_recall" in metrics}
    for phase, first, steps in (("light", 0, config.light_steps), ("llm", config.light_steps, config.steps)):
        recalls = {step - first: recall for step, recall in by_step.items() if first < step <= first + steps}
        recalls = {0: figures[f"validation_recall_before_{phase}"]} | recalls
        best = max(recalls.values())
        equals = [step for step, recall in recalls.items() if recall == best]
        assert figures[f"validation_recall_kept_{phase}"] == best
        assert figures[f"validation_recall_kept_step_{phase}"] == equals[-1]
        last = max(step for step, _ in curve if step <= first + steps) - first
        assert last == max(recalls) < steps
        assert last == equals[0] + 2 * config.validate_steps, "two measurements without a better one"
        assert figures[f"validation_recall_after_{phase}"] == recalls[last] < best
    assert curve[-1][0] < config.light_steps + config.steps


def returning() -> Histories:
    """Everybody takes the same four things again and again."""
    taken = planted.log(60, ITEMS).items.reshape(60, -1)
    return Histories(LOG.user_ids, LOG.offsets, np.tile(taken[:, :4], 6).ravel(), LOG.timestamps)


def test_habits_count_where_people_have_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hymirec_model.validation.LIST", 8)
    config = replace(CONFIG, light_steps=1, steps=1)
    figures, _, model = train(config=config, histories=returning())
    assert figures["habit_strength"] == model.habits.strength > 0
    assert figures["validation_recall_with_habits"] > figures["validation_recall_without_habits"] + 0.1
    assert figures["validation_recall_with_habits"] >= figures["validation_recall_kept_llm"]
    figures, _, model = train(config=config, histories=returning(), mask_seen=True)
    assert model.habits == NONE and figures["habit_strength"] == 0, "nobody is shown again what they had"


def test_what_was_taken_last_is_set_back_where_it_is_not_taken_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """People take four things in turn, a day apart: all of them come again, the last one last."""
    monkeypatch.setattr("hymirec_model.validation.LIST", 3)
    monkeypatch.setattr("hymirec_model.training.HABITS", [NONE, *(Habits(4.0, satiety) for satiety in (0.0, 1.0, 4.0))])
    log = returning()
    daily = replace(log, timestamps=np.tile(np.arange(24) * DAY_SECONDS, 60))
    figures, _, model = train(config=replace(CONFIG, light_steps=1, steps=1, window=3), histories=daily)
    assert figures["habit_satiety"] == model.habits.satiety > 0


def test_what_is_popular_counts_where_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ten days three other items are in fashion, which nobody's own history tells."""
    monkeypatch.setattr("hymirec_model.validation.LIST", 8)
    users, config, rng = 240, replace(CONFIG, light_steps=1, steps=1, validation_users=200), np.random.default_rng(0)
    fashions = rng.permutation(ITEMS)[:72].reshape(24, 3)
    taken = np.stack([rng.choice(fashion, users) for fashion in fashions], axis=1).ravel()
    stamps = np.tile(np.arange(24) * 10 * DAY_SECONDS, users) + np.repeat(rng.integers(0, DAY_SECONDS, users), 24)
    log = Histories(np.arange(users).astype(str).astype(object), np.arange(users + 1) * 24, taken, stamps)
    for mask_seen in (False, True):
        figures, _, model = train(config=config, histories=log, mask_seen=mask_seen)
        assert figures["shift_strength"] == model.shift.strength > 0 and figures["shift_days"] == model.shift.days > 0
        assert figures["validation_recall_soon_with_shift"] > 1.2 * figures["validation_recall_soon_without_shift"]
    monkeypatch.setattr("hymirec_model.training.SHIFTS", [NO_SHIFT, Shift(7.0, 1e-9)])
    figures, _, model = train(config=config, histories=log)
    assert model.shift == NO_SHIFT and figures["shift_strength"] == 0, "what changes nothing is left out"


@pytest.mark.parametrize("objective", ["mixture", "dmil"])
def test_interests_learn_nothing_from_what_habits_answer_for(
    objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every target is one of the user's own, a step has no loss."""
    monkeypatch.setattr("hymirec_model.validation.LIST", 8)
    figures, curve, _ = train(objective, replace(CONFIG, light_steps=1, steps=1), returning())
    assert figures["habit_strength"] > 0 and [metrics["loss"] for _, metrics in curve] == [0.0, 0.0]
    assert np.isfinite(list(figures.values())).all() and np.isfinite(curve[-1][1]["gradient_norm"])
    _, curve, _ = train(objective, replace(CONFIG, light_steps=1, steps=1), returning(), mask_seen=True)
    assert min(metrics["loss"] for _, metrics in curve) > 0.1


def test_objective_of_the_paper_trains() -> None:
    config = replace(CONFIG, light_steps=10, steps=20)
    figures, curve, _ = train("dmil", config)
    losses = [metrics["loss"] for _, metrics in curve[config.light_steps :]]
    assert np.isfinite(losses).all() and np.mean(losses[-5:]) < np.mean(losses[:5])
    assert np.isfinite(list(figures.values())).all()


def test_light_phase_leaves_the_llm_alone() -> None:
    _, _, start = train(config=replace(CONFIG, light_steps=0, steps=0))
    _, _, model = train(config=replace(CONFIG, light_steps=8, steps=0))
    before = dict(start.named_parameters())
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert "light.read.weight" in changed
    assert any(name.startswith("llm.") for name in before) and not [name for name in changed if name.startswith("llm.")]


def test_without_any_steps_interests_still_differ() -> None:
    figures, curve, _ = train(config=replace(CONFIG, light_steps=0, steps=0))
    assert curve == [] and figures["validation_pairwise_interest_cosine"] < 0.999


def test_the_llm_reads_the_held_windows_once_for_all_that_is_measured_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    users: list[int] = []
    forward = LLMRecommender.forward

    def noted(self: LLMRecommender, coarse_BMd: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        users.append(len(coarse_BMd))
        return forward(self, coarse_BMd, *others)

    monkeypatch.setattr(LLMRecommender, "forward", noted)
    train(config=replace(CONFIG, light_steps=0, steps=0))
    assert sum(users) == CONFIG.validation_users


@pytest.mark.parametrize("length", [2, 5])
def test_histories_too_short_to_hold_a_window_back_still_train(length: int) -> None:
    short = planted.log(10, ITEMS, length=length)
    figures, curve, _ = train(config=replace(CONFIG, light_steps=1, steps=1), histories=short)
    assert len(curve) == 2 and np.isfinite(curve[-1][1]["loss"])
    assert {name for name in figures if "recall" not in name} <= {
        "habit_strength",
        "habit_satiety",
        "shift_days",
        "shift_strength",
        "validation_loss",
        "validation_coarse_loss",
        "validation_largest_interest_share",
        "validation_pairwise_interest_cosine",
    }
