"""Our content encoder beside sentence-transformers: texts a second on the same weights, texts, tokens and precision.

Usage::

    make bench-embed
    make bench-embed ARGS="--texts 256 --turns 3 --weights minilm-l6"

Distinct texts of The Complete Journey, BLOCK at a time that stand together in the order of texts, as embed_catalog's
slices do; ``distinct_tokens`` are those left where texts that begin alike share them. Both read the same tokens: our
closing prompt is empty, and our item token
stands where the peer's last token does (for SmolLM2 the peer's texts get the end-of-text mark). The peer pools the
last token, so both give the same states, or the run ends; ``difference`` is the largest between them, as a share of
the largest number. The peer runs at its default batch of 32 and at other sizes; the checks compare with its best. All
in turns, in one process. ``texts_per_s`` is the median of the turns and ``sd`` their standard deviation, per second
of CPU time; ``wall_s`` is the median of the clock. ``deduplication`` stands apart: products for each distinct text.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
import typer

from benchmarks.report import Check, Results
from hymirec_model import weights
from hymirec_model.config import EncoderConfig
from hymirec_model.content_encoder import ContentEncoder
from hymirec_model.text_passes import END
from jobs.platform.local import state_folder

TARGET = 1.3
PEER_BATCHES = (32, 8, 128)  # the first is its default
SHARE = {"minilm-l6": 1.0, "smollm2-135m": 0.25}  # of the texts: a larger model reads fewer
BLOCK = 32
TOKENS = 128  # longer than any text: nothing is cut
Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
SAME: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 0.1}  # largest difference of states that are the same
States = npt.NDArray[np.float32]
Embed = Callable[[], States]


@dataclass(frozen=True, slots=True)
class Case:
    """What is compared: a model, its number format and its threads."""

    weights: str
    layers: int
    precision: Precision
    threads: int

    def row(self) -> dict[str, Any]:
        """Its part of a row."""
        layers = f", {self.layers} layers" if self.layers else ""
        return {"weights": self.weights + layers, "precision": self.precision, "threads": self.threads}


def main(
    texts: Annotated[int, typer.Option(help="Distinct texts for MiniLM; a quarter of them for SmolLM2.")] = 1024,
    turns: Annotated[int, typer.Option(help="Turns of each contender.")] = 5,
    models: Annotated[list[str], typer.Option("--weights", help="Weights to measure.")] = list(SHARE),  # noqa: B006
    threads: Annotated[list[int], typer.Option(help="Numbers of threads.")] = [1, 2],  # noqa: B006
    precision: Annotated[
        Precision | None, typer.Option(help="One number format; bfloat16 is slow on a CPU without instructions for it.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the results file.")] = "embed",
) -> None:
    """Measure and write benchmarks/results/NAME.json."""
    results = Results(name)
    products = catalogue()
    distinct = sorted(set(products))
    ratio = len(products) / len(distinct)
    results.add({"name": "deduplication", "products": len(products), "texts": len(distinct), "ratio": ratio})
    sample = blocks(distinct, texts)
    for case in cases(models, threads, (precision,) if precision else PRECISIONS):
        contest(results, case, sample[: max(1, round(SHARE[case.weights] * len(sample)))], turns)
        results.checks = checks(results.rows)
        results.write()
    results.show()


def cases(models: list[str], threads: list[int], precisions: Sequence[Precision] = PRECISIONS) -> list[Case]:
    """All comparisons; MiniLM also with the three layers that the demo uses."""
    depths = {"minilm-l6": (0, 3), "smollm2-135m": (0,)}
    return [
        Case(model, layers, precision, count)
        for count in threads
        for model in models
        for layers in depths[model]
        for precision in precisions
    ]


def catalogue() -> list[str]:
    """Texts of all products of The Complete Journey, as the pipeline makes them."""
    from pyspark.sql import functions as F

    from jobs.platform.sources.complete_journey import complete_journey
    from jobs.platform.spark import session

    _, items = complete_journey(session("benchmark"))
    rows = items.select(F.concat_ws(". ", "title", "description", "category").alias("text")).collect()
    return [str(row.text) for row in rows]


def blocks(texts: list[str], count: int) -> list[str]:
    """About ``count`` of the texts, BLOCK neighbours at a time."""
    starts = np.random.default_rng(0).permutation(len(texts) // BLOCK)[: -(-count // BLOCK)]
    return [text for start in starts for text in texts[BLOCK * start : BLOCK * (start + 1)]]


def contest(results: Results, case: Case, texts: list[str], turns: int) -> None:
    """Time ours and the peer in turns, and add a row each."""
    torch.set_num_threads(case.threads)
    config = EncoderConfig(
        weights=case.weights, backbone_layers=case.layers, max_tokens=TOKENS, prompt="", precision=case.precision
    )
    encoder = ContentEncoder.from_pretrained(config, weights.resolve(case.weights, state_folder() / "models")).eval()
    contenders = {"HyMiRec": lambda: encoder.embed(texts)} | peers(encoder, case, texts)
    reference = contenders[f"sentence-transformers, batch {PEER_BATCHES[0]}"]()
    difference = float(np.abs(encoder.embed(texts) - reference).max() / np.abs(reference).max())
    check_states(case, difference)
    measured = [[timed(embed) for embed in contenders.values()] for _ in range(turns)]
    tokens = [(*ids, END) for ids in encoder.tokenize(texts)]
    about = {**case.row(), "texts": len(texts), "tokens": sum(len(ids) for ids in tokens)}
    about["distinct_tokens"] = len({ids[:stop] for ids in tokens for stop in range(1, len(ids) + 1)})
    for name, pairs in zip(contenders, np.transpose(measured, (1, 2, 0)), strict=True):
        speeds = len(texts) / pairs[0]
        row = {"name": name, **about, "texts_per_s": float(np.median(speeds)), "sd": float(np.std(speeds))}
        row["tokens_per_s"] = row["texts_per_s"] * about["tokens"] / len(texts)
        results.add(row | {"wall_s": float(np.median(pairs[1])), "difference": difference})


def peers(encoder: ContentEncoder, case: Case, texts: list[str]) -> dict[str, Embed]:
    """sentence-transformers with the encoder's weights at each batch size."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    with TemporaryDirectory() as folder:
        encoder.backbone.save_pretrained(folder)
        if encoder.tokenizer.pad_token is None:
            encoder.tokenizer.pad_token = encoder.tokenizer.eos_token
        encoder.tokenizer.chat_template = None  # else the peer reads each text inside a chat with a system prompt
        encoder.tokenizer.save_pretrained(folder)
        reader = Transformer(folder)
    model = SentenceTransformer(modules=[reader, Pooling(encoder.hidden, pooling_mode="lasttoken")], device="cpu")
    model.to(getattr(torch, case.precision))
    mark = "" if encoder.tokenizer.sep_token is not None else str(encoder.tokenizer.eos_token)
    marked = [text + mark for text in texts]
    read = model.preprocess(marked)["attention_mask"].sum(1).tolist()  # what its model gets, not its tokenizer's word
    check_tokens(case.weights, [len(ids) + 1 for ids in encoder.tokenize(texts)], read)

    def embed(batch: int) -> States:
        found = model.encode(marked, batch_size=batch, convert_to_tensor=True, show_progress_bar=False)
        return np.asarray(found.float())

    return {f"sentence-transformers, batch {batch}": partial(embed, batch) for batch in PEER_BATCHES}


def check_tokens(model: str, ours: list[int], peer: list[int]) -> None:
    """End with an error where the two read other numbers of tokens of a text: their speeds would say nothing."""
    if ours != peer:
        raise SystemExit(f"error: {model}: seen {sum(ours)} tokens of ours, {sum(peer)} of the peer; allowed: the same")


def check_states(case: Case, difference: float) -> None:
    """End with an error where the two give other states: they would not have done the same work."""
    limit = SAME[case.precision]
    if not difference <= limit:
        raise SystemExit(
            f"error: {case.weights}, {case.precision}: states differ by {difference:.2g}; allowed: {limit}; see that "
            "both read the same tokens and take the same one's state"
        )


def timed(embed: Embed) -> tuple[float, float]:
    """Seconds of CPU time and of the clock."""
    cpu, clock = time.process_time(), time.perf_counter()
    embed()
    return time.process_time() - cpu, time.perf_counter() - clock


def checks(rows: list[dict[str, Any]]) -> list[Check]:
    """Ours over the peer's best batch size, for each case."""
    made = []
    for ours in (row for row in rows if row["name"] == "HyMiRec"):
        key = ("weights", "precision", "threads")
        rivals = [row for row in rows if row["name"] not in ("HyMiRec", "deduplication")]
        best = max(row["texts_per_s"] for row in rivals if all(row[k] == ours[k] for k in key))
        title = f"{ours['weights']}, {ours['precision']}, {ours['threads']} threads: speed over the peer's best"
        made.append(Check(title, ours["texts_per_s"] / best, TARGET, ours["texts_per_s"] >= TARGET * best))
    return made


if __name__ == "__main__":
    typer.run(main)
