"""One batch that several processes share: each holds some of its rows, and all train as one process would.

DistributedDataParallel averages the gradients of the processes. The average of their means is not the mean over all
rows where they hold different numbers of them, and windows at the end of a history have fewer targets.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def processes() -> tuple[int, int]:
    """This process's number and how many there are: (0, 1) where torchrun did not start it."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def sum_of_all(number: int, device: torch.device) -> int:
    """Sum of the processes' numbers; every one of them has to call it."""
    if not dist.is_initialized():
        return number
    shared = torch.tensor([number], device=device)
    dist.all_reduce(shared)
    return int(shared.item())


def of_the_first(number: float, device: torch.device) -> float:
    """The first process's number, for all: what they decide by must not differ by rounding."""
    if not dist.is_initialized():
        return number
    shared = torch.tensor([number], dtype=torch.float64, device=device)
    dist.broadcast(shared, 0)
    return shared.item()


def mean_of_all(rows: Tensor) -> Tensor:
    """Mean over the rows of all processes; every one of them has to call it.

    Parameters
    ----------
    rows : Tensor of shape (rows, …)
        This process's, any number of them.

    Returns
    -------
    Tensor of shape (…)
        Equal in all processes; 0 where none has a row. Its gradient is such that the average over the processes is
        that of the whole mean.
    """
    _, world = processes()
    if world == 1:
        return rows.mean(0) if len(rows) else rows.sum(0)
    total = rows.sum(0)
    shared = torch.cat([total.detach().flatten(), total.new_tensor([len(rows)])])
    dist.all_reduce(shared)
    shared[-1].clamp_(min=1)
    own = total * (world / shared[-1])
    return (shared[:-1] / shared[-1]).view_as(total) + (own - own.detach())
