from __future__ import annotations

from pathlib import Path

import torch

from hymirec_model.user_side import UserSide


def test_saved_and_loaded_user_sides_are_equal_to_the_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    side = UserSide(6, width=10, recency=0.4)
    side.save(tmp_path)
    loaded = UserSide.load(tmp_path)
    assert not loaded.training
    for name, tensor in side.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
