from __future__ import annotations

import pytest
import torch

from hymirec_model.ranking import top_columns


@pytest.mark.parametrize("n", [1, 3, 7, 11, 12])
@pytest.mark.parametrize("levels", [1, 2, 4, 1000])
def test_equals_a_stable_sort_of_all_columns(n: int, levels: int) -> None:
    score_Un = torch.randint(levels, (50, 12), generator=torch.Generator().manual_seed(levels)).float()
    score_Un[:20, 2:6] = -torch.inf
    wanted, order = score_Un.sort(dim=1, descending=True, stable=True)
    columns, scores = top_columns(score_Un, n)
    assert torch.equal(scores, wanted[:, :n])
    assert torch.equal(columns, order[:, :n].masked_fill(wanted[:, :n] == -torch.inf, -1))


def test_no_rows() -> None:
    columns, scores = top_columns(torch.empty(0, 5), 2)
    assert columns.shape == scores.shape == (0, 2)
