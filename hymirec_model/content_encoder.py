"""The content encoder: item text → state at a learnt item token (HyMiRec, arXiv 2510.13738, stage 1).

The text, a short closing prompt and one learnt token go through a pretrained language model; the last hidden state
at that token stands for the item. Causal LMs and bidirectional text encoders both work.

Shapes: B texts, T tokens, h hidden size.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from hymirec_model.config import EncoderConfig
from hymirec_model.devices import embedding_dtype
from hymirec_model.errors import InputError, require
from hymirec_model.folders import reading
from hymirec_model.text_passes import LastStatePass, last_state_pass, pack
from hymirec_model.weights import DATA_ONLY, pretrained_config

transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]


class ContentEncoder(nn.Module):
    """Text → state of shape (h,) at the item token.

    Parameters
    ----------
    config : EncoderConfig
    backbone : PreTrainedModel
        A transformer that takes ``inputs_embeds``.
    tokenizer : PreTrainedTokenizerBase
    """

    def __init__(self, config: EncoderConfig, backbone: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.config, self.backbone, self.tokenizer = config, backbone, tokenizer
        words = backbone.get_input_embeddings().weight
        assert isinstance(words, Tensor)
        # It starts as the end-of-text mark, which pretraining has already taught to look back.
        mark = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
        if mark is None:
            raise InputError(
                f"weights {config.weights!r}: the tokenizer has neither a sep nor an eos token; allowed: one"
            )
        self.item_token = nn.Parameter(words[mark].detach().clone())
        self._prompt = tokenizer(config.prompt, add_special_tokens=False)["input_ids"]
        # A text's longest form: perhaps a first token, the text, the prompt, the item token.
        beside = len(self._prompt) + 1 + (tokenizer.cls_token_id is not None)
        places = getattr(backbone.config, "max_position_embeddings", None)
        require(
            places is None or config.max_tokens + beside <= places,
            f"encoder.max_tokens is {config.max_tokens}; allowed: up to {(places or 0) - beside}, because "
            f"{config.weights} reads {places} tokens and the prompt takes {beside} of them",
        )

    @classmethod
    def from_pretrained(cls, config: EncoderConfig, source: str) -> ContentEncoder:
        """Start from pretrained weights in ``source`` (see :func:`hymirec_model.weights.resolve`)."""
        settings = pretrained_config(source, config.backbone_layers)
        with reading(Path(source), "a language model"):
            backbone = AutoModel.from_pretrained(source, config=settings, dtype=torch.float32, **DATA_ONLY)
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        if hasattr(backbone, "pooler"):
            backbone.pooler = None  # weights that no loss would ever reach
        return cls(config, backbone, tokenizer)

    @property
    def hidden(self) -> int:
        """h, length of a state."""
        return int(self.backbone.config.hidden_size)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, cut at ``max_tokens``, with the closing prompt; the item token is not among them."""
        encoded = self.tokenizer(
            list(texts), add_special_tokens=False, truncation=True, max_length=self.config.max_tokens
        )["input_ids"]
        start = [] if self.tokenizer.cls_token_id is None else [self.tokenizer.cls_token_id]
        return [[*start, *ids, *self._prompt] for ids in encoded]

    def forward(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Return the states at the item token, of shape (B, h), of texts that :meth:`tokenize` prepared."""
        device = self.item_token.device
        lengths_B = torch.tensor([len(ids) for ids in tokens], device=device)
        longest = int(lengths_B.max()) + 1
        ids_BT = torch.zeros(len(tokens), longest, dtype=torch.long, device=device)
        for row, ids in enumerate(tokens):
            ids_BT[row, : len(ids)] = torch.tensor(ids, device=device)
        place_T = torch.arange(longest, device=device)
        is_item_BT = place_T == lengths_B[:, None]
        embedded_BTh = self.backbone.get_input_embeddings()(ids_BT)
        embedded_BTh = torch.where(is_item_BT[..., None], self.item_token, embedded_BTh)
        mask_BT = (place_T <= lengths_B[:, None]).long()
        output_BTh = self.backbone(inputs_embeds=embedded_BTh, attention_mask=mask_BT).last_hidden_state
        state_Bh: Tensor = output_BTh[torch.arange(len(tokens), device=device), lengths_B]
        return state_Bh

    def _last_states(self, tokens: Sequence[Sequence[int]], fast: LastStatePass | None) -> Tensor:
        """What :meth:`forward` returns of texts, the longest first, in less time where there is a pass."""
        if fast is None:
            states_Bh: Tensor = self(tokens)
            return states_Bh
        words = self.backbone.get_input_embeddings().weight
        assert isinstance(words, Tensor)
        return fast.run(self.backbone, pack(words, tokens, self.item_token, share=fast.causal))

    def _batches(self, tokens: list[list[int]], *, alike: bool) -> Iterator[list[int]]:
        """Rows of each batch: of texts that begin alike, or of texts of similar length."""
        lengths = [len(ids) + 1 for ids in tokens]
        if alike:
            order = sorted(range(len(tokens)), key=tokens.__getitem__)
        else:  # the longest first: running out of memory shows at once
            order = sorted(range(len(tokens)), key=lambda row: -lengths[row])
        batch: list[int] = []
        longest = 0
        for row in order:
            longest = max(longest, lengths[row])
            if batch and longest * (len(batch) + 1) > self.config.batch_tokens:
                yield batch
                batch, longest = [], lengths[row]
            batch.append(row)
        if batch:
            yield batch

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], progress: Callable[[int], object] | None = None) -> npt.NDArray[np.float32]:
        """States of shape (n, h) of many texts.

        A batch has texts that begin alike where the model is causal, and so can share their beginnings; else texts of
        similar length.

        Parameters
        ----------
        texts : sequence of str
        progress : callable, optional
            Called with the number of texts done in each batch.
        """
        tokens, fast = self.tokenize(texts), last_state_pass(self.backbone)
        states = np.empty((len(texts), self.hidden), np.float32)
        device = self.item_token.device
        dtype = embedding_dtype(self.config.precision, device)
        # Sums and norms between the matrix products stay in float32.
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            for rows in self._batches(tokens, alike=fast is not None and fast.causal):
                rows.sort(key=lambda row: -len(tokens[row]))
                states[rows] = self._last_states([tokens[row] for row in rows], fast).float().cpu().numpy()
                if progress is not None:
                    progress(len(rows))
        return states

    def save(self, folder: Path) -> None:
        """Write config.json, item_token.safetensors and the folder backbone/ (Hugging Face layout)."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(
            json.dumps(dataclasses.asdict(self.config), indent=1, sort_keys=True) + "\n"
        )
        save_file({"item_token": self.item_token.detach().contiguous()}, folder / "item_token.safetensors")
        self.backbone.save_pretrained(folder / "backbone")
        self.tokenizer.save_pretrained(folder / "backbone")

    @classmethod
    def load(cls, folder: Path) -> ContentEncoder:
        """Read an encoder that :meth:`save` wrote.

        Raises
        ------
        InputError
            If the files are missing, damaged or not those of an encoder.
        """
        with reading(folder, "an encoder"):
            config = EncoderConfig(**json.loads((folder / "config.json").read_text()))
            encoder = cls.from_pretrained(config, str(folder / "backbone"))
            encoder.load_state_dict(load_file(folder / "item_token.safetensors"), strict=False)
        return encoder.eval()
