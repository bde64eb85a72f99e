"""Forward passes that give the state at the last token of each text, with no more work than that takes.

Texts lie one after the other without padding, the longest first; attention goes over runs of texts of equal length,
so it needs no mask. In the last layer only keys and values are taken of all tokens, the rest of the last ones alone.

Shapes: N tokens of B texts, h hidden size, H heads, D numbers a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Packed:
    """Embedded texts without padding.

    Parameters
    ----------
    embedded : tensor of shape (N, h)
    place : int64 tensor of shape (N,)
        Place of a token in its text, from 0.
    last : int64 tensor of shape (B,)
        Index of each text's last token.
    runs : list of (int, int)
        Texts and tokens a text of each run of texts of equal length.
    """

    embedded: Tensor
    place: Tensor
    last: Tensor
    runs: list[tuple[int, int]]


Pass = Callable[[Any, Packed], Tensor]


def last_state_pass(backbone: Any) -> Pass | None:
    """The pass of this kind of model, or None where there is none: (backbone, Packed) → states (B, h)."""
    config = backbone.config
    if config.model_type == "bert" and not config.is_decoder:
        return _bert
    if config.model_type == "llama":
        return _llama
    return None


def pack(words: Tensor, tokens: Sequence[Sequence[int]], end: Tensor) -> Packed:
    """Lay texts one after the other.

    Parameters
    ----------
    words : tensor of shape (vocabulary, h)
        Embeddings of tokens.
    tokens : sequence of sequences of int
        Token ids of B texts, the longest first.
    end : tensor of shape (h,)
        Embedding of the token that follows each of them.
    """
    lengths = [len(ids) + 1 for ids in tokens]
    lengths_B = torch.tensor(lengths, device=words.device)
    last_B = lengths_B.cumsum(0) - 1
    # The id at the end is a stand-in, whose embedding is replaced.
    ids_N = torch.tensor([token for ids in tokens for token in (*ids, 0)], device=words.device)
    embedded_Nh = F.embedding(ids_N, words)
    embedded_Nh[last_B] = end
    first_B = last_B - lengths_B + 1
    place_N = torch.arange(len(ids_N), device=words.device) - first_B.repeat_interleave(lengths_B)
    runs = [(lengths.count(length), length) for length in dict.fromkeys(lengths)]
    return Packed(embedded_Nh, place_N, last_B, runs)


def _bert(backbone: Any, texts: Packed) -> Tensor:
    embeddings, layers = backbone.embeddings, backbone.encoder.layer
    kind_h, place_Nh = embeddings.token_type_embeddings.weight[0], embeddings.position_embeddings(texts.place)
    state = embeddings.LayerNorm(texts.embedded + kind_h + place_Nh)
    for number, layer in enumerate(layers):
        own, final = layer.attention.self, number == len(layers) - 1
        size = own.attention_head_size
        key, value = _heads(own.key(state), size), _heads(own.value(state), size)
        if final:
            state = state[texts.last]
        mixed = _attend(_heads(own.query(state), size), key, value, texts.runs, causal=False, final=final)
        state = layer.attention.output(mixed, state)
        state = layer.output(layer.intermediate(state), state)
    state_Bh: Tensor = state
    return state_Bh


def _llama(backbone: Any, texts: Packed) -> Tensor:
    state = texts.embedded
    cos, sin = (turn[0, :, None] for turn in backbone.rotary_emb(state, texts.place[None]))
    for number, layer in enumerate(backbone.layers):
        own, final = layer.self_attn, number == len(backbone.layers) - 1
        normed = layer.input_layernorm(state)
        key, value = _turned(_heads(own.k_proj(normed), own.head_dim), cos, sin), own.v_proj(normed)
        if final:
            state, normed, cos, sin = state[texts.last], normed[texts.last], cos[texts.last], sin[texts.last]
        query = _turned(_heads(own.q_proj(normed), own.head_dim), cos, sin)
        mixed = _attend(query, key, _heads(value, own.head_dim), texts.runs, causal=True, final=final)
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


def _attend(
    query: Tensor, key: Tensor, value: Tensor, runs: list[tuple[int, int]], *, causal: bool, final: bool
) -> Tensor:
    """Attention within each text: (N, H·D), or (B, H·D) where ``final`` queries are those of the last tokens alone.

    A last token attends to its whole text, so then no token has to be hidden from it.
    """
    mixed, asked, start = [], 0, 0
    for texts, length in runs:
        queries = 1 if final else length
        stop, until = start + texts * length, asked + texts * queries
        parts = (
            query[asked:until].view(texts, queries, *query.shape[1:]).transpose(1, 2),
            key[start:stop].view(texts, length, *key.shape[1:]).transpose(1, 2),
            value[start:stop].view(texts, length, *value.shape[1:]).transpose(1, 2),
        )
        grouped = query.shape[1] != key.shape[1]
        found = F.scaled_dot_product_attention(*parts, is_causal=causal and not final, enable_gqa=grouped)
        mixed.append(found.transpose(1, 2).reshape(texts * queries, -1))
        start, asked = stop, until
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)
