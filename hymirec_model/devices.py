"""Where training runs, what makes it repeat to the bit, and in which numbers models compute."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def training_device() -> torch.device:
    """CUDA device of this process where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def embedding_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Number format of the matrix products of an encoder: what ``encoder.precision`` says.

    ``auto`` asks what the hardware can do and measures nothing: the same machine always gives the same bytes.
    """
    fast = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if precision == "bfloat16" or (precision == "auto" and fast) else torch.float32


def training_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Number format of the matrix products in training: ``auto`` is bfloat16 on CUDA and float32 on the CPU."""
    half = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
    return torch.bfloat16 if half else torch.float32


def repeatable_on_cpu(train: Callable[P, R]) -> Callable[P, R]:
    """Let a function that trains give the same weights for the same inputs, to the bit, if its ``device`` is the CPU.

    Else several threads add up the gradients of gathered rows in a race. The number of threads still counts, as it
    decides in which order sums are taken.
    """

    signature = inspect.signature(train)

    @functools.wraps(train)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        before = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(before or given.arguments["device"].type == "cpu")
        try:
            return train(*args, **kwargs)
        finally:
            torch.use_deterministic_algorithms(before)

    return call
