"""How a pretrained language model is tuned: low-rank updates in place of its weights, and less memory for more time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from transformers import PreTrainedModel

from hymirec_model.content_encoder import ContentEncoder
from hymirec_model.errors import require

LORA_SCALE = 2  # lora_alpha / rank, as is usual


@contextmanager
def tuned_backbone(encoder: ContentEncoder, *, lora_rank: int, checkpointing: bool) -> Iterator[None]:
    """Prepare an encoder's backbone for training steps; at the end it is a plain model again, with what was learnt.

    Parameters
    ----------
    encoder : ContentEncoder
        Its ``backbone`` is changed in place.
    lora_rank : int
        Rank of the updates to all linear layers that are trained (LoRA, arXiv 2106.09685), and merged into the weights
        at the end; 0 = all weights are trained.
    checkpointing : bool
        Compute each layer's inner values again in the backward pass.

    Raises
    ------
    InputError
        If this kind of model cannot be checkpointed.
    """
    plain = encoder.backbone
    if checkpointing:
        require(
            plain.supports_gradient_checkpointing,
            f"encoder_training.gradient_checkpointing: seen true with a model of type {plain.config.model_type}, which "
            "cannot; allowed: false",
        )
        plain.activation_checkpointing_enable({"use_reentrant": False})  # else frozen inputs would cut the gradient
    if lora_rank:
        # Only where it is used: whoever serves or embeds needs no peft.
        from peft import LoraConfig, get_peft_model

        settings = LoraConfig(r=lora_rank, lora_alpha=LORA_SCALE * lora_rank, target_modules="all-linear")
        encoder.backbone = cast(PreTrainedModel, get_peft_model(plain, settings))
    try:
        yield
    finally:
        if lora_rank:
            adapted: Any = encoder.backbone
            encoder.backbone = adapted.merge_and_unload().requires_grad_(True)
        if checkpointing:
            encoder.backbone.activation_checkpointing_disable()  # type: ignore[no-untyped-call]
