"""A phase of stage 2: its optimiser and schedule, how far it is, and the best weights on the way."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from hymirec_model.config import RecommenderTrainingConfig
from hymirec_model.encoder_training import cosine_rate
from hymirec_model.hymirec import HyMiRec

SCALE_PACE = 5  # the scale's learning rate over the others': it has a long way to go in few steps
Name = Literal["light", "llm"]
_PLACE = ("done", "before", "after", "best", "best_step", "stale")


class Phase:
    """Some steps that train the light recommender alone, or the whole recommender.

    Parameters
    ----------
    name : {"light", "llm"}
    first : int
        Steps of the phases before it.
    steps : int
        At most.
    model : HyMiRec
        On the device where it is trained.
    config : RecommenderTrainingConfig

    Attributes
    ----------
    done : int
        Steps of this phase.
    before, after, best : float or None
        Recall on held windows: before the first step, when last measured, and the highest; None where it is not known.
    """

    def __init__(self, name: Name, first: int, steps: int, model: HyMiRec, config: RecommenderTrainingConfig) -> None:
        self.name, self.first, self.steps, self._config = name, first, steps, config
        groups = _parameter_groups(model, config, self.light_only)
        names = {parameter: key for key, parameter in model.named_parameters()}
        self.trained: dict[str, nn.Parameter] = {names[p]: p for group in groups for p in group["params"]}
        self._optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
        self.done = self.best_step = self.stale = 0
        self.before: float | None = None
        self.after: float | None = None
        self.best: float | None = None
        self._best_weights: dict[str, Tensor] = {}

    @property
    def light_only(self) -> bool:
        """Whether the light recommender is trained alone."""
        return self.name == "light"

    @property
    def over(self) -> bool:
        """Whether all steps are done, or the last ``patience`` measurements brought nothing better."""
        return self.done >= self.steps or (self._config.validate_steps > 0 and self.stale >= self._config.patience)

    @property
    def measures(self) -> bool:
        """Whether the recall is due after the steps that are done."""
        every = self._config.validate_steps
        return self.done == self.steps or (every > 0 and self.done % every == 0)

    def begin(self, recall: float | None) -> None:
        """Take down the recall before the first step, and the weights that go with it."""
        self.before = recall
        self.judge(recall)

    def zero_grad(self) -> None:
        """Forget the gradient of the step before."""
        self._optimizer.zero_grad()

    def step(self) -> float:
        """Take a step along the gradient, clipped; return its norm before that."""
        warmup = 1 + int(self._config.warmup * self.steps)
        factor = cosine_rate(self.done, self.steps, warmup)
        for group in self._optimizer.param_groups:
            group["lr"] = group["base"] * factor
        norm = nn.utils.clip_grad_norm_(list(self.trained.values()), self._config.clip_norm)
        self._optimizer.step()
        self.done += 1
        return float(norm)

    def judge(self, recall: float | None) -> None:
        """Keep the weights if none before were better; ``recall`` is None where there is nothing to measure on."""
        if recall is None:
            return
        self.after = recall
        better = self.best is None or recall > self.best
        self.stale = 0 if better else self.stale + 1
        if better or recall == self.best:  # of equals the one that has seen more
            self.best, self.best_step = recall, self.done
            self._best_weights = {name: parameter.detach().clone() for name, parameter in self.trained.items()}

    @torch.no_grad()
    def end(self) -> dict[str, float]:
        """Put the best weights in, and return the recall before, after and as kept, with the step of the phase kept."""
        if self.before is None or self.after is None or self.best is None:
            return {}
        if self.best_step != self.done:
            for name, parameter in self.trained.items():
                parameter.copy_(self._best_weights[name])
        return {
            f"validation_recall_before_{self.name}": self.before,
            f"validation_recall_after_{self.name}": self.after,
            f"validation_recall_kept_{self.name}": self.best,
            f"validation_recall_kept_step_{self.name}": float(self.best_step),
        }

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that changes in the phase, as JSON values and tensors: weights, the best ones and Adam's moments."""
        tensors: dict[str, Tensor] = {f"weight/{name}": parameter for name, parameter in self.trained.items()}
        tensors |= {f"best/{name}": weight for name, weight in self._best_weights.items()}
        for number, moments in self._optimizer.state_dict()["state"].items():
            tensors |= {f"moment/{number}/{name}": tensor for name, tensor in moments.items()}
        return {name: getattr(self, name) for name in _PLACE}, tensors

    @torch.no_grad()
    def restore(self, place: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Go to where another phase of the same training was when its :meth:`state` was taken."""
        for name in _PLACE:
            setattr(self, name, place[name])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            kind, _, name = key.partition("/")
            if kind == "weight":
                self.trained[name].copy_(tensor)
            elif kind == "best":
                self._best_weights[name] = tensor.to(self.trained[name].device)
            elif kind == "moment":
                number, _, moment = name.partition("/")
                moments.setdefault(int(number), {})[moment] = tensor
        # Adam's moments go to their parameters' device and its count of steps stays on the CPU, as at the start.
        self._optimizer.load_state_dict({**self._optimizer.state_dict(), "state": moments})


def _parameter_groups(model: HyMiRec, config: RecommenderTrainingConfig, light_only: bool) -> list[dict[str, Any]]:
    """Parameters by learning rate; what a phase does not train is left out."""
    pretrained = {id(p) for p in model.llm.backbone.parameters()}
    scratch = [p for p in model.parameters() if id(p) not in pretrained]
    if light_only:
        scratch = [*model.light.parameters()]
    scratch = [p for p in scratch if p is not model.log_scale]
    groups: list[dict[str, Any]] = [
        {"params": scratch, "base": config.learning_rate},
        {"params": [model.log_scale], "base": SCALE_PACE * config.learning_rate},
    ]
    if not light_only:
        tuned = [p for p in model.llm.backbone.parameters() if p.requires_grad]
        groups.append({"params": tuned, "base": config.backbone_learning_rate})
    return groups
