"""Forward passes that give the state at the last token of each text, with no more work than that takes.

Texts lie one after the other without padding, the longest first; attention goes over runs of texts of equal length,
so it needs no mask. In the last layer only keys and values are taken of all tokens, the rest of the last ones alone.
In a causal model a token's state depends on what stands before it alone, so texts that begin alike share the tokens of
their beginning, as the branches of a prefix tree share a stem: all but attention is computed once for these.

Shapes: N tokens at P places (P > N where some are shared) of B texts, h hidden size, H heads, D numbers a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

END = -1  # in place of a token id: the token that follows a text


@dataclass(frozen=True, slots=True)
class Packed:
    """Embedded texts without padding.

    Parameters
    ----------
    embedded : tensor of shape (N, h)
    depth : int64 tensor of shape (N,)
        Place of a token in its text, from 0.
    last : int64 tensor of shape (B,)
        Each text's last token.
    runs : list of (int, int)
        Texts and tokens a text of each run of texts of equal length.
    token_at : int64 tensor of shape (P,), or None
        The token at each place, text by text; None where no token is shared.
    place_of : int64 tensor of shape (N,), or None
        A place of each token.
    """

    embedded: Tensor
    depth: Tensor
    last: Tensor
    runs: list[tuple[int, int]]
    token_at: Tensor | None = None
    place_of: Tensor | None = None


@dataclass(frozen=True, slots=True)
class LastStatePass:
    """A pass for one kind of model.

    Parameters
    ----------
    run : callable
        (backbone, Packed) → states of shape (B, h).
    causal : bool
        Whether texts may share tokens.
    """

    run: Callable[[Any, Packed], Tensor]
    causal: bool


def last_state_pass(backbone: Any) -> LastStatePass | None:
    """The pass of this kind of model, or None where there is none."""
    config = backbone.config
    if config.model_type == "bert" and not config.is_decoder:
        return LastStatePass(_bert, causal=False)
    if config.model_type == "llama":
        return LastStatePass(_llama, causal=True)
    return None


def pack(words: Tensor, tokens: Sequence[Sequence[int]], end: Tensor, *, share: bool = False) -> Packed:
    """Lay texts one after the other.

    Parameters
    ----------
    words : tensor of shape (vocabulary, h)
        Embeddings of tokens.
    tokens : sequence of sequences of int
        Token ids of B texts, the longest first.
    end : tensor of shape (h,)
        Embedding of the token that follows each of them.
    share : bool, default=False
        Whether texts that begin alike share tokens.
    """
    stems: dict[tuple[int, int, int], int] = {}  # (text or, if shared, 0; token before; token id) → number
    token_at: list[int] = []
    place_of: list[int] = []
    depth, last = [], []
    for text, ids in enumerate(tokens):
        number = -1
        for place, token in enumerate((*ids, END)):
            number = stems.setdefault((0 if share else text, number, token), len(stems))
            if number == len(place_of):
                place_of.append(len(token_at))
                depth.append(place)
            token_at.append(number)
        last.append(number)
    ids_N = torch.tensor([token for _, _, token in stems], device=words.device)
    ends_N = ids_N == END
    embedded_Nh = torch.where(ends_N[:, None], end, F.embedding(ids_N.masked_fill(ends_N, 0), words))
    lengths = [len(ids) + 1 for ids in tokens]
    depth_N, last_B, token_at_P, place_of_N = (
        torch.tensor(values, device=words.device) for values in (depth, last, token_at, place_of)
    )
    runs = [(lengths.count(length), length) for length in dict.fromkeys(lengths)]
    if len(place_of_N) == len(token_at_P):
        return Packed(embedded_Nh, depth_N, last_B, runs)
    return Packed(embedded_Nh, depth_N, last_B, runs, token_at_P, place_of_N)


def _bert(backbone: Any, texts: Packed) -> Tensor:
    embeddings, layers = backbone.embeddings, backbone.encoder.layer
    kind_h, place_Nh = embeddings.token_type_embeddings.weight[0], embeddings.position_embeddings(texts.depth)
    state = embeddings.LayerNorm(texts.embedded + kind_h + place_Nh)
    for number, layer in enumerate(layers):
        own, final = layer.attention.self, number == len(layers) - 1
        size = own.attention_head_size
        key, value = _heads(own.key(state), size), _heads(own.value(state), size)
        if final:
            state = state[texts.last]
        mixed = _attend(_heads(own.query(state), size), key, value, texts, causal=False, final=final)
        state = layer.attention.output(mixed, state)
        state = layer.output(layer.intermediate(state), state)
    state_Bh: Tensor = state
    return state_Bh


def _llama(backbone: Any, texts: Packed) -> Tensor:
    state = texts.embedded
    cos, sin = (turn[0, :, None] for turn in backbone.rotary_emb(state, texts.depth[None]))
    for number, layer in enumerate(backbone.layers):
        own, final = layer.self_attn, number == len(backbone.layers) - 1
        normed = layer.input_layernorm(state)
        key, value = _turned(_heads(own.k_proj(normed), own.head_dim), cos, sin), own.v_proj(normed)
        if final:
            state, normed, cos, sin = state[texts.last], normed[texts.last], cos[texts.last], sin[texts.last]
        query = _turned(_heads(own.q_proj(normed), own.head_dim), cos, sin)
        mixed = _attend(query, key, _heads(value, own.head_dim), texts, causal=True, final=final)
        state = state + own.o_proj(mixed)
        state = state + layer.mlp(layer.post_attention_layernorm(state))
    normed_Bh: Tensor = backbone.norm(state)
    return normed_Bh


def _heads(flat: Tensor, size: int) -> Tensor:
    """(N, H·D) → (N, H, D)."""
    return flat.view(len(flat), -1, size)


def _turned(heads_NHD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding; cos and sin have the shape (N, 1, D)."""
    left, right = heads_NHD.chunk(2, dim=-1)
    return heads_NHD * cos + torch.cat((-right, left), dim=-1) * sin


def _attend(query: Tensor, key: Tensor, value: Tensor, texts: Packed, *, causal: bool, final: bool) -> Tensor:
    """Attention within each text: (N, H·D), or (B, H·D) where ``final`` queries are those of the last tokens alone.

    A last token attends to its whole text, so then no token has to be hidden from it.
    """
    if texts.token_at is not None:
        key, value = key[texts.token_at], value[texts.token_at]
        query = query if final else query[texts.token_at]
    mixed, asked, start = [], 0, 0
    for count, length in texts.runs:
        queries = 1 if final else length
        stop, until = start + count * length, asked + count * queries
        parts = (
            query[asked:until].view(count, queries, *query.shape[1:]).transpose(1, 2),
            key[start:stop].view(count, length, *key.shape[1:]).transpose(1, 2),
            value[start:stop].view(count, length, *value.shape[1:]).transpose(1, 2),
        )
        grouped = query.shape[1] != key.shape[1]
        found = F.scaled_dot_product_attention(*parts, is_causal=causal and not final, enable_gqa=grouped)
        mixed.append(found.transpose(1, 2).reshape(count * queries, -1))
        start, asked = stop, until
    joined = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
    return joined if final or texts.place_of is None else joined[texts.place_of]
