"""Profiles: one YAML file with every setting of a refresh, checked strictly when it is read."""

from __future__ import annotations

import difflib
import json
import re
import typing
from collections.abc import Hashable
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from hymirec_model.config import (
    CodebookConfig,
    EncoderConfig,
    EncoderTrainingConfig,
    EvaluationConfig,
    IndexConfig,
    ItemSpaceConfig,
    RecommenderConfig,
    RecommenderTrainingConfig,
)
from hymirec_model.errors import require
from jobs.platform.errors import ProfileError
from jobs.platform.names import Drift, Promote, Retrain

PROFILES = Path(__file__).resolve().parents[2] / "infra" / "profiles"


@dataclass(frozen=True, kw_only=True, slots=True)
class ContractConfig:
    """What check_inputs tolerates before it stops the refresh."""

    max_bad_share: float = 0.01
    """Largest share of a table's rows, and of each day's events, that may be bad."""
    min_events: int = 1
    """Fewest accepted events of a day that has any; a first run takes the days before its own as they are."""
    min_items: int = 2
    """Fewest accepted items in the catalogue."""
    max_late_days: int = 0
    """Days that an event may be older than the partition of ``events`` it came in."""
    max_text_chars: int = 2000
    """Longest text of an item that is kept; the rest is cut off."""
    drift: Drift = "stop"
    """A day beyond a limit below: ``stop`` the run, ``accept`` it as an exception, ``restart``: compare from it on."""
    drift_days: int = 28
    """Accepted days that a day is compared with: whole weeks, so that each weekday counts alike."""
    min_drift_days: int = 7
    """Fewest of them; a day with fewer before it is not compared."""
    min_drift_rows: int = 1000
    """Fewest events (the median of these days) and items that are compared with; smaller numbers change by chance."""
    max_count_ratio: float = 3.0
    """Times that events, users and distinct items may be above or below their median; also number and text of items."""
    max_share_rise: float = 0.2
    """Rise of the share of events of the top user, the top item, new items, without seq; of items without category."""
    max_distance: float = 0.2
    """Jensen-Shannon distance (0 to 1) of the events by category, and by kind, from those of these days."""
    max_hour_distance: float = 0.6
    """The same by hour of the day (UTC), which holidays change more."""
    seed: int = 0
    """Seed of the order in which new items are numbered and of the choice among equal duplicates."""

    def __post_init__(self) -> None:
        require(0 <= self.max_bad_share < 1, f"max_bad_share is {self.max_bad_share}; allowed: 0 up to below 1")
        require(self.max_late_days >= 0, f"max_late_days is {self.max_late_days}; allowed: 0 or more")
        for name in ("min_events", "min_items", "max_text_chars", "drift_days", "min_drift_days", "min_drift_rows"):
            value = getattr(self, name)
            require(value >= 1, f"{name} is {value}; allowed: 1 or more")
        seen = f"min_drift_days is {self.min_drift_days}"
        require(self.min_drift_days <= self.drift_days, f"{seen}; allowed: up to drift_days, {self.drift_days}")
        require(self.max_count_ratio > 1, f"max_count_ratio is {self.max_count_ratio}; allowed: above 1")
        for name in ("max_share_rise", "max_distance", "max_hour_distance"):
            value = getattr(self, name)
            require(0 < value <= 1, f"{name} is {value}; allowed: above 0 up to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoriesConfig:
    """How user histories are stored."""

    max_length: int = 2000
    """Newest events of a user that are kept: at least twice ``recommender.history``."""
    max_days: int | None = None
    """Days, the run's own included, whose events are kept; null: all. Who has none left is nobody's user any more."""
    buckets: int = 4
    """Folders that the users are spread over: crc32(user_id) % buckets. A task holds one of them in memory."""
    sample_users: int = 200_000
    """Most users whose histories training, evaluation and build_index hold: a fair sample. All have interests."""

    def __post_init__(self) -> None:
        require(self.max_length >= 1, f"max_length is {self.max_length}; allowed: 1 or more")
        require(
            self.max_days is None or self.max_days >= 1, f"max_days is {self.max_days}; allowed: 1 or more, or null"
        )
        require(self.sample_users >= 1, f"sample_users is {self.sample_users}; allowed: 1 or more")
        require(1 <= self.buckets <= 1000, f"buckets is {self.buckets}; allowed: 1 to 1000")


@dataclass(frozen=True, kw_only=True, slots=True)
class GateConfig:
    """What a model and a release must fulfil before they are published."""

    min_ratio_to_popularity: float = 1.0
    """Smallest recall of the model divided by that of the popularity list, on the same users."""
    max_loss_to_champion: float = 0.03
    """Largest loss beside the champion on the same users, as a share of its figure; a greater, clear one refuses."""
    min_coverage_ratio: float = 0.5
    """Smallest share of the catalogue in somebody's first 50, divided by the champion's (at first: popularity's)."""
    max_interest_cosine: float = 0.995
    """Largest mean cosine between different interests of a user: above it they have collapsed."""
    min_index_recall: float = 0.99
    """Smallest recall of users' merged lists through the ANN index against exact search."""
    min_users_ratio: float = 0.95
    """Smallest number of users with interests, divided by those of the release before who did not ask to be deleted."""
    min_items_ratio: float = 1.0
    """Smallest number of items divided by that of the release before: a catalogue only grows."""
    min_code_usage: float = 0.9
    """Smallest share of the entries of the codebook's first generation that items use."""
    max_cosine_loss: float = 0.005
    """Largest loss of the mean cosine of items and their codes, beside the release before."""

    def __post_init__(self) -> None:
        require(
            self.min_ratio_to_popularity >= 0,
            f"min_ratio_to_popularity is {self.min_ratio_to_popularity}; allowed: 0 or more",
        )
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name != "min_ratio_to_popularity":
                require(0 <= value <= 1, f"{entry.name} is {value}; allowed: 0 to 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """All settings of a refresh."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)  # holds for all sections

    name: str
    """Name that tells profiles apart in a release's manifest; where a profile has none, the name of its file."""
    retrain: Retrain = "auto"
    """``auto`` trains when there is no model, it is old or its settings changed; ``always``, ``never`` as they say."""
    retrain_every_days: int = 7
    """Age in days at which ``auto`` trains again."""
    promote: Promote = "auto"
    """``auto`` switches to a release that passes the gate; ``never`` publishes it without; ``dry-run`` only judges."""
    keep_releases: int = 14
    """Newest releases that are kept, beside the current one, its parent and those that an alias names."""
    contract: ContractConfig = field(default_factory=ContractConfig)
    histories: HistoriesConfig = field(default_factory=HistoriesConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    encoder_training: EncoderTrainingConfig = field(default_factory=EncoderTrainingConfig)
    item_space: ItemSpaceConfig = field(default_factory=ItemSpaceConfig)
    codebook: CodebookConfig = field(default_factory=CodebookConfig)
    recommender: RecommenderConfig = field(default_factory=RecommenderConfig)
    recommender_training: RecommenderTrainingConfig = field(default_factory=RecommenderTrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    index: IndexConfig = field(default_factory=IndexConfig)
    gate: GateConfig = field(default_factory=GateConfig)

    def __post_init__(self) -> None:
        require(bool(self.name), "name is empty; allowed: one or more characters")
        require(
            self.retrain_every_days >= 1,
            f"retrain_every_days is {self.retrain_every_days}; allowed: 1 or more",
        )
        require(self.keep_releases >= 2, f"keep_releases is {self.keep_releases}; allowed: 2 or more")
        for name in ("window", "validation_users"):
            first, second = getattr(self.item_space, name), getattr(self.recommender_training, name)
            require(
                first == second,
                f"item_space.{name} is {first}; allowed: that of recommender_training, which is {second}: stage 1 "
                "leaves out the windows that stage 2 is measured on",
            )
        kept = self.histories.max_length // 2
        require(
            self.recommender.history <= kept,
            f"recommender.history is {self.recommender.history}; allowed: up to {kept}, half of histories.max_length: "
            "training and evaluation, which leave out the newest days, have no longer ones",
        )


class _Loader(yaml.SafeLoader):
    """YAML with 1e-5 as a number (PyYAML reads it as text), dates as text, and no key twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def load_profile(name_or_path: str) -> Profile:
    """Read and check a profile.

    Parameters
    ----------
    name_or_path : str
        Name of a file in infra/profiles without its ending, or a path to a YAML file.

    Returns
    -------
    Profile

    Raises
    ------
    ProfileError
        If there is no such file, or a key or a value is not allowed; the message lists every fault.
    """
    path = _find(name_or_path)
    try:
        settings = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except yaml.YAMLError as error:
        raise ProfileError(f"profile {path.name} is not YAML: {' '.join(str(error).split())}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"profile {path}: cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise ProfileError(f"profile {path.name}: seen {_describe(settings)}; allowed: a mapping of settings")
    settings = {"name": path.stem} | settings
    # JSON is the form in which strict mode takes mappings for dataclasses and lists for tuples.
    try:
        return TypeAdapter(Profile).validate_json(json.dumps(settings))
    except ValidationError as error:
        faults = "; ".join(_explain(fault) for fault in error.errors(include_url=False))
        raise ProfileError(f"profile {path.name}: {faults}") from None


def is_path(name_or_path: str) -> bool:
    """Tell whether a profile is named by the path of its file."""
    return "/" in name_or_path or name_or_path.endswith((".yaml", ".yml"))


def _find(name_or_path: str) -> Path:
    path = Path(name_or_path) if is_path(name_or_path) else PROFILES / f"{name_or_path}.yaml"
    if path.is_file():
        return path
    names = sorted(p.stem for p in PROFILES.glob("*.yaml"))
    raise ProfileError(
        f"profile: seen {name_or_path!r}; allowed: {', '.join(names) or 'none yet'}, or a path to a YAML file"
    )


def _explain(fault: Any) -> str:
    """One fault of pydantic in this project's words: where, what was seen, what is allowed."""
    keys = [str(part) for part in fault["loc"]]
    where = ".".join(keys) or "the profile"
    if fault["type"] == "unexpected_keyword_argument":
        allowed = _keys_at(keys[:-1])
        close = difflib.get_close_matches(keys[-1], allowed, n=1)
        guess = f" (did you mean {close[0]!r}?)" if close else ""
        return f"unknown key {where!r}{guess}; allowed: {', '.join(allowed)}"
    if fault["type"] == "value_error":
        return f"{where}: {fault['ctx']['error']}"
    if fault["type"] == "dataclass_type":
        return f"{where}: seen {_describe(fault['input'])}; allowed: a mapping of settings"
    reason = fault["msg"].removeprefix("Input should be ").removeprefix("a valid ").removeprefix("an ")
    return f"{where}: seen {_describe(fault['input'])}; allowed: {reason}"


def _keys_at(path: list[str]) -> list[str]:
    """Keys that the profile allows in the section at ``path``."""
    section: Any = Profile
    for key in path:
        section = typing.get_type_hints(section)[key]
    return [f.name for f in fields(section)] if is_dataclass(section) else []


def _describe(value: Any) -> str:
    kinds = {str: "text", bool: "true/false", int: "integer", float: "number", list: "list", dict: "mapping"}
    return "nothing" if value is None else f"{json.dumps(value)} ({kinds.get(type(value), type(value).__name__)})"
