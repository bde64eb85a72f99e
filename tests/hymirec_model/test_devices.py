from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from hymirec_model.config import ItemSpaceConfig
from hymirec_model.devices import repeatable_on_cpu
from hymirec_model.encoder_training import CPU, train_item_space
from hymirec_model.item_space import ItemSpace
from hymirec_model.user_side import UserSide
from tests.hymirec_model import planted

ITEMS, HIDDEN = 20, 32
CONFIG = ItemSpaceConfig(dim=64, steps=12, batch_users=256, window=8, history=24, negatives=20, learning_rate=5e-3)


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def trained() -> bytes:
    torch.manual_seed(0)
    states = planted.vectors(ITEMS, HIDDEN, noise=1.0)
    log = planted.log(300, ITEMS, length=40)
    space = ItemSpace(replace(CONFIG, residual=False), HIDDEN, ITEMS)
    space.initialise(states, np.arange(ITEMS), log)
    user_side = UserSide(CONFIG.dim)
    train_item_space(space, user_side, states, np.arange(ITEMS), log, space.config, lambda step, metrics: None)
    return b"".join(tensor.numpy().tobytes() for tensor in space.head.state_dict().values())


@pytest.mark.usefixtures("four_threads")
def test_several_threads_train_the_same_bytes_each_time() -> None:
    assert len({trained() for _ in range(3)}) == 1


def test_the_setting_is_put_back_even_after_an_error() -> None:
    seen = []

    @repeatable_on_cpu
    def fails(device: torch.device = CPU) -> None:
        seen.append(torch.are_deterministic_algorithms_enabled())
        raise ValueError("no")

    for device in (CPU, torch.device("cuda")):  # which keeps its fast, unordered sums
        with pytest.raises(ValueError, match="no"):
            fails(device)
    with pytest.raises(ValueError, match="no"):
        fails()
    assert seen == [True, False, True] and not torch.are_deterministic_algorithms_enabled()
