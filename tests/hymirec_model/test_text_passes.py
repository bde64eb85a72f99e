from __future__ import annotations

from itertools import accumulate

import torch
from hypothesis import given
from hypothesis import strategies as st

from hymirec_model.text_passes import Packed, pack

WORDS = torch.arange(12, dtype=torch.float32).view(6, 2)
END = torch.tensor([-1.0, -2.0])
TEXTS = st.lists(st.lists(st.integers(0, 5), max_size=5), min_size=1, max_size=8).map(
    lambda texts: sorted(texts, key=len, reverse=True)
)


def read(packed: Packed) -> list[list[list[float]]]:
    """The embedded tokens of each text, as attention meets them."""
    at = torch.arange(len(packed.embedded)) if packed.token_at is None else packed.token_at
    lengths = [length for texts, length in packed.runs for _ in range(texts)]
    stops = list(accumulate(lengths))
    for length, stop, last in zip(lengths, stops, packed.last.tolist(), strict=True):
        assert packed.depth[at[stop - length : stop]].tolist() == list(range(length)) and at[stop - 1] == last
    assert sum(lengths) == len(at)
    return [packed.embedded[at[stop - length : stop]].tolist() for length, stop in zip(lengths, stops, strict=True)]


@given(TEXTS)
def test_texts_are_the_same_whether_they_share_tokens_or_not(texts: list[list[int]]) -> None:
    apart, shared = pack(WORDS, texts, END), pack(WORDS, texts, END, share=True)
    assert read(apart) == read(shared) == [[*WORDS[ids].tolist(), END.tolist()] for ids in texts]


@given(TEXTS)
def test_each_beginning_is_there_once(texts: list[list[int]]) -> None:
    ended = [(*ids, "end") for ids in texts]
    beginnings = {ids[:stop] for ids in ended for stop in range(1, len(ids) + 1)}
    packed = pack(WORDS, texts, END, share=True)
    assert len(packed.embedded) == len(beginnings)
    if packed.place_of is not None and packed.token_at is not None:
        assert packed.token_at[packed.place_of].tolist() == list(range(len(beginnings)))


def test_without_sharing_each_place_has_a_token_of_its_own() -> None:
    packed = pack(WORDS, [[1, 2], [1, 2], [1]], END)
    assert len(packed.embedded) == 8 and packed.token_at is packed.place_of is None
    assert len(pack(WORDS, [[1, 2], [1, 2], [1]], END, share=True).embedded) == 4
