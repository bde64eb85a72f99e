"""Settings of the model library: one frozen dataclass a part, checked when made.

A profile (infra/profiles/*.yaml) holds one block for each of these classes. The text under a field documents it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, Literal

from hymirec_model.errors import require


def _positive(owner: object, *names: str) -> None:
    for name in names:
        value: Any = getattr(owner, name)
        require(0 < value < inf, f"{type(owner).__name__}.{name} is {value}; allowed: greater than 0")


def _not_negative(owner: object, *names: str) -> None:
    for name in names:
        value: Any = getattr(owner, name)
        require(0 <= value < inf, f"{type(owner).__name__}.{name} is {value}; allowed: 0 or more")


def _share(owner: object, *names: str) -> None:
    for name in names:
        value: Any = getattr(owner, name)
        require(0 <= value <= 1, f"{type(owner).__name__}.{name} is {value}; allowed: 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """The content encoder: text → item vector (HyMiRec, stage 1)."""

    weights: str = "minilm-l6"
    """Pretrained language model: ``minilm-l6``, ``smollm2-135m``, a folder, or a Hugging Face model id."""
    backbone_layers: int = 0
    """First N transformer layers of it that are used (0 = all)."""
    max_tokens: int = 48
    """Tokens of an item's text that are read; the closing prompt and the item token come on top."""
    prompt: str = " in short:"
    """Closing prompt between the text and the learnt item token."""
    batch_tokens: int = 8192
    """Tokens (padding counted) in one forward pass when embedding the catalogue."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the matrix products when texts are embedded. ``auto`` is bfloat16 on CUDA and on CPUs with
    instructions for it (AVX512-BF16 or AMX), where it takes about half the time, and float32 elsewhere."""

    def __post_init__(self) -> None:
        _positive(self, "max_tokens", "batch_tokens")
        _not_negative(self, "backbone_layers")


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderTrainingConfig:
    """Stage 1, first half: the content encoder is tuned end to end on a recommendation loss.

    The head is fitted on frozen text states before the backbone moves: tuning under a random head distorts
    pretrained features (Kumar et al. 2022, arXiv 2202.10054).
    """

    pool_items: int = 1500
    """Items with the most events, whose texts the tuning reads."""
    head_steps: int = 60
    """Steps that train head and user side on the frozen backbone's states of the pool."""
    steps: int = 8
    """Steps that train everything end to end, backbone and item token included (0 = leave the backbone as it is)."""
    batch_users: int = 16
    """Users an end-to-end step."""
    window: int = 5
    """Targets a user: the next events after the cut position."""
    history: int = 15
    """Newest events that the user side reads."""
    negatives: int = 64
    """Sampled negatives shared by an end-to-end step."""
    in_batch_negatives: bool = False
    """The other users' targets are negatives too. Their texts are read anyway, so the gradient has less noise for the
    same work."""
    learning_rate: float = 1e-3
    """Learning rate of head, item token and user side in an end-to-end step."""
    backbone_learning_rate: float = 2e-5
    """Learning rate of the pretrained layers; with ``lora_rank`` ten times as much is usual."""
    lora_rank: int = 0
    """Rank of the updates to the linear layers that are tuned in place of the pretrained weights (LoRA, arXiv
    2106.09685); they are added to the weights before the encoder is saved. 0 tunes all weights."""
    gradient_checkpointing: bool = False
    """Compute a layer's inner values a second time in the backward pass in place of keeping them: less memory, about
    a third more time."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the language model's matrix products in an end-to-end step; weights and loss stay in float32. ``auto`` is
    bfloat16 on CUDA and float32 on the CPU."""
    seed: int = 0
    """Seed of initial weights, batches and negatives."""

    def __post_init__(self) -> None:
        _positive(self, "pool_items", "batch_users", "window", "history", "negatives")
        _positive(self, "learning_rate", "backbone_learning_rate")
        _not_negative(self, "head_steps", "steps", "lora_rank")


@dataclass(frozen=True, kw_only=True, slots=True)
class ItemSpaceConfig:
    """Stage 1, second half: text states → item vectors, by a shared head and a small residual an item."""

    dim: int = 64
    """Length of an item vector."""
    residual: bool = True
    """Learn a vector an item beside its text; zero for items without events before the cut."""
    shrinkage: float = 3.0
    """Events at which an item's residual counts half at the start: n / (n + shrinkage)."""
    near: int = 50
    """Two items count as taken together when a user took them at most so many events apart."""
    near_decay: float = 0.7
    """A pair that lies g events apart counts g ** -near_decay."""
    item_exponent: float = 0.3
    """Power of an item's total that its co-occurrences are divided by: the lower, the more popular items lead."""
    spectrum_exponent: float = 0.25
    """Power of the eigenvalues in item vectors: the lower, the more rare patterns count."""
    recency: float = 0.8
    """A user's r-th newest event weighs r ** -recency at the start."""
    steps: int = 300
    """Steps that tune the space and the user side (0 = leave them as the log gives them)."""
    batch_users: int = 128
    """Users a step."""
    window: int = 10
    """Targets a user: the next events after the cut position."""
    recent: float = 0.3
    """Share of a user's moments, the newest ones, that training cuts at."""
    half_life_days: float = 0.0
    """A moment so many days old is drawn half as often: for catalogues that change in months (0 = all ages alike)."""
    history: int = 100
    """Newest events that the user side reads."""
    negatives: int = 4096
    """Sampled negatives shared by a step."""
    learning_rate: float = 2e-4
    """Learning rate of head, residuals and user side."""
    validation_users: int = 512
    """Users whose last window is left to stage 2's validation: as ``RecommenderTrainingConfig.validation_users``."""
    seed: int = 0
    """Seed of initial weights, batches and negatives."""

    def __post_init__(self) -> None:
        _positive(self, "dim", "near", "batch_users", "window", "history", "negatives", "learning_rate")
        _not_negative(self, "steps", "validation_users", "half_life_days")
        _share(self, "recent", "near_decay", "item_exponent", "spectrum_exponent")


@dataclass(frozen=True, kw_only=True, slots=True)
class CodebookConfig:
    """The residual codebook: item vector → L bytes (HyMiRec, residual codebook based on cosine similarity)."""

    layers: int = 8
    """Codes an item: one byte each."""
    size: int = 256
    """Entries a layer: a power of two up to 256."""
    beam: int = 12
    """Width of the beam search that encodes."""
    form: Literal["additive", "projection"] = "additive"
    """``additive`` sums the chosen entries; ``projection`` is the paper's literal form."""
    fit_sample: int = 50_000
    """Most vectors that a fit reads."""
    iterations: int = 12
    """k-means iterations a layer."""
    refit_rounds: int = 2
    """Rounds of the joint refit of all layers at the end; one comes every few layers on the way (0 = none at all)."""
    drift: float = 0.02
    """A new generation is fitted when arrivals' mean cosine falls further than this below the base pool's."""
    drift_recall: float = 0.1
    """The same for the share of ten nearest neighbours that codes keep."""
    max_generations: int = 8
    """Where one more would be due, a new book is fitted and all items are coded anew; each costs encoding time."""
    seed: int = 0
    """Seed of the samples that are fitted and measured, and of k-means."""

    def __post_init__(self) -> None:
        _positive(self, "layers", "size", "beam", "fit_sample", "iterations", "drift", "drift_recall")
        _not_negative(self, "refit_rounds")
        require(
            1 <= self.max_generations <= 256,
            f"CodebookConfig.max_generations is {self.max_generations}; allowed: 1 to 256, as one byte stores them",
        )
        allowed = [2**bits for bits in range(1, 9)]
        require(self.size in allowed, f"CodebookConfig.size is {self.size}; allowed: {', '.join(map(str, allowed))}")
        seen = f"CodebookConfig.fit_sample is {self.fit_sample}"
        require(self.fit_sample >= self.size, f"{seen}; allowed: {self.size}, the size, or more")


@dataclass(frozen=True, kw_only=True, slots=True)
class RecommenderConfig:
    """Light recommender and LLM recommender (HyMiRec, stage 2)."""

    weights: str = "smollm2-135m"
    """Pretrained language model of the LLM recommender: as ``EncoderConfig.weights``."""
    backbone_layers: int = 2
    """First N transformer layers of it that are used (0 = all)."""
    interests: int = 8
    """K: interests a user."""
    coarse_interests: int = 8
    """M: coarse interests that the light recommender hands on."""
    history: int = 1000
    """Newest events that the light recommender reads, from codes."""
    recent: int = 20
    """R: newest events that the LLM recommender reads one by one."""
    light_width: int = 128
    """Width of the light recommender's hidden layers."""
    objective: Literal["mixture", "dmil"] = "mixture"
    """``mixture`` trains the score that retrieval uses; ``dmil`` the paper's matching to target clusters."""
    dmil_negatives: Literal["own", "all"] = "own"
    """Interests whose scores of the negatives a target of ``dmil`` is held against: the one that answers for it, as in
    the paper, or all of the user's, which puts interests on one scale."""
    merge: Literal["lse", "max", "calibrated"] = "lse"
    """How K cosines become one score at retrieval."""
    refine: bool = True
    """Interests are mixtures of coarse interests that the LLM corrects; else the LLM's output alone (the paper)."""

    def __post_init__(self) -> None:
        _positive(self, "interests", "coarse_interests", "history", "recent", "light_width")
        _not_negative(self, "backbone_layers")


@dataclass(frozen=True, kw_only=True, slots=True)
class RecommenderTrainingConfig:
    """Stage 2: how the recommender is trained."""

    light_steps: int = 400
    """Steps that train the light recommender alone, before the LLM joins (0 = none)."""
    steps: int = 200
    """Steps that train the whole recommender (0 = none)."""
    batch_users: int = 64
    """Users a step; several devices share them out."""
    accumulation: int = 1
    """Parts that a device reads its users of a step in, one after another, where memory is short. The gradient stays
    that of the whole batch; from 2 on, a step takes one forward pass more."""
    window: int = 10
    """W: targets a user, the next events after the cut position."""
    recent: float = 0.3
    """Share of a user's moments, the newest ones, that training cuts at: the task of today, with a whole history."""
    half_life_days: float = 0.0
    """As ``ItemSpaceConfig.half_life_days``."""
    negatives: int = 4096
    """Sampled negatives shared by a step."""
    learning_rate: float = 1e-3
    """Learning rate of the parts that start from scratch."""
    backbone_learning_rate: float = 1e-4
    """Learning rate of the pretrained layers."""
    warmup: float = 0.05
    """Share of the steps in which the learning rate rises; it falls as a cosine afterwards."""
    coarse_loss: float = 0.5
    """Weight of the same loss on the coarse interests."""
    balance_loss: float = 0.1
    """Weight of the load-balance term that evens the use of the interests."""
    false_negative_cosine: float = 0.98
    """Negatives closer to the target than this (cosine) are masked."""
    clip_norm: float = 1.0
    """Largest norm of a step's gradient; a longer one is cut to it."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto`` is bfloat16 on CUDA and float32 on the CPU."""
    validation_users: int = 512
    """Most users whose last window before the cut is left out of training and measures the model after it."""
    validate_steps: int = 0
    """Steps between measurements of the recall on those windows, of which a phase keeps the best weights. 0: only
    before and after each phase, whose weights stay as they were if it makes the recall worse."""
    patience: int = 3
    """Measurements in a row without a better recall that end a phase early; no effect if ``validate_steps`` is 0."""
    checkpoint_steps: int = 25
    """Steps between checkpoints, from which a training that was killed goes on (0 = none). One takes about 16 bytes a
    trained parameter."""
    seed: int = 0
    """Seed of initial weights, batches and negatives."""

    def __post_init__(self) -> None:
        _positive(self, "batch_users", "window", "negatives", "clip_norm", "patience", "accumulation")
        _positive(self, "learning_rate", "backbone_learning_rate")
        _not_negative(self, "light_steps", "steps", "validation_users", "validate_steps", "checkpoint_steps")
        _share(self, "warmup", "false_negative_cosine", "recent")
        _not_negative(self, "half_life_days")
        seen, most = f"RecommenderTrainingConfig.accumulation is {self.accumulation}", self.batch_users
        require(self.accumulation <= most, f"{seen}; allowed: 1 to batch_users, which is {most}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """Held-out evaluation by time with full ranking."""

    holdout_days: int = 7
    """The last days up to and including ``ds`` that are held out. Models that have seen one are trained anew."""
    max_users: int = 20_000
    """Most users ranked; a seeded sample beyond."""
    mask_seen: bool = False
    """Leave a user's earlier items out of the ranking; off where people buy the same thing again."""
    sparse_events: int = 20
    """Users with fewer events before the held-out days form the cohort of sparse users."""
    bootstrap: int = 1000
    """Resamples of the users for the 95 % intervals."""
    seed: int = 0
    """Seed of the sample of users, of the resamples, and of the order among equal scores."""

    def __post_init__(self) -> None:
        _positive(self, "holdout_days", "max_users", "sparse_events", "bootstrap")


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexConfig:
    """The ANN index of a release."""

    types: tuple[Literal["flat", "hnsw", "ivf", "ivf-int8", "ivf-int4", "ivf-pq"], ...] = ("flat", "ivf", "ivf-int4")
    """Index types that are tried, see ``hymirec_model/index_types.py``."""
    memory_mb: float | None = None
    """Largest size of the index in megabytes; types that do not fit are left out. Without one: any size."""
    target_recall: float = 0.99
    """Recall against exact search that the index must reach."""
    neighbours: int = 100
    """List length at which recall is measured."""
    queries: int = 2000
    """Interests sampled as queries."""
    seed: int = 0
    """Seed of the sampled users and vectors, and of the training of inverted files."""

    def __post_init__(self) -> None:
        _positive(self, "neighbours", "queries")
        _share(self, "target_recall")
        require(
            len(self.types) > 0,
            "IndexConfig.types is empty; allowed: one or more of flat, hnsw, ivf, ivf-int8, ivf-int4, ivf-pq",
        )
        require(
            self.memory_mb is None or self.memory_mb > 0, f"memory_mb is {self.memory_mb}; allowed: above 0, or null"
        )
