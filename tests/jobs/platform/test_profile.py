"""A profile is read strictly: each fault is named with its file, key, what was seen and what is allowed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from jobs.platform.errors import ProfileError
from jobs.platform.profile import PROFILES, Profile, load_profile

SECTIONS = [f.name for f in dataclasses.fields(Profile) if dataclasses.is_dataclass(getattr(Profile(name="x"), f.name))]


@pytest.fixture
def profile(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_profile_of_the_repository_is_valid(path: Path) -> None:
    assert load_profile(path.stem) == load_profile(str(path))
    assert load_profile(path.stem).name == path.stem


def test_an_empty_mapping_is_all_defaults(profile) -> None:
    assert load_profile(profile("{}")) == Profile(name="mine")


def test_values_are_taken(profile) -> None:
    text = """
    retrain: never
    contract: {max_bad_share: 1e-3}
    gate: {min_ratio_to_popularity: 2}
    index: {types: [flat]}
    """
    loaded = load_profile(profile(text))
    assert loaded.retrain == "never"
    assert loaded.contract.max_bad_share == 1e-3
    assert loaded.gate.min_ratio_to_popularity == 2.0
    assert loaded.index.types == ("flat",)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_misspelt_key_in_any_section(profile, section: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile(profile(f"{section}: {{sed: 1}}"))
    message = str(caught.value)
    assert message.startswith(f"profile mine.yaml: unknown key '{section}.sed'")
    keys = [f.name for f in dataclasses.fields(getattr(Profile(name="x"), section))]
    assert f"; allowed: {', '.join(keys)}" in message
    if "seed" in keys:
        assert "did you mean 'seed'?" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("retrian: never", "unknown key 'retrian' (did you mean 'retrain'?); allowed: name, retrain,"),
        ("retrain: sometimes", "retrain: seen \"sometimes\" (text); allowed: 'auto', 'always' or 'never'"),
        ("retrain: no", "retrain: seen false (true/false); allowed: 'auto', 'always' or 'never'"),
        ('retrain_every_days: "7"', 'retrain_every_days: seen "7" (text); allowed: integer'),
        ("retrain_every_days: 7.0", "retrain_every_days: seen 7.0 (number); allowed: integer"),
        ("retrain_every_days: true", "retrain_every_days: seen true (true/false); allowed: integer"),
        ("retrain_every_days: 0", "retrain_every_days is 0; allowed: 1 or more"),
        ("histories: {buckets: 0}", "histories: buckets is 0; allowed: 1 to 1000"),
        (
            "contract: {drift: ignore}",
            "contract.drift: seen \"ignore\" (text); allowed: 'stop', 'accept' or 'restart'",
        ),
        (
            "contract: {drift_days: 7, min_drift_days: 8}",
            "contract: min_drift_days is 8; allowed: up to drift_days, 7",
        ),
        ("contract: {max_count_ratio: 1}", "contract: max_count_ratio is 1.0; allowed: above 1"),
        ("contract: {max_distance: 0}", "contract: max_distance is 0.0; allowed: above 0 up to 1"),
        ("contract: {max_bad_share: 1}", "contract: max_bad_share is 1.0; allowed: 0 up to below 1"),
        ("gate: {min_index_recall: 2}", "gate: min_index_recall is 2.0; allowed: 0 to 1"),
        ("gate: 3", "gate: seen 3 (integer); allowed: a mapping of settings"),
        ("gate:", "gate: seen nothing; allowed: a mapping of settings"),
        (
            "index: {types: [flat, hsnw]}",
            "index.types.1: seen \"hsnw\" (text); allowed: 'flat', 'hnsw', 'ivf', 'ivf-int8', 'ivf-int4' or 'ivf-pq'",
        ),
        ("codebook: {layers: 0}", "codebook: CodebookConfig.layers is 0; allowed: greater than 0"),
        ("codebook: {fit_sample: 100}", "CodebookConfig.fit_sample is 100; allowed: 256, the size, or more"),
        ("encoder: {backbone_layers: -1}", "EncoderConfig.backbone_layers is -1; allowed: 0 or more"),
        ("item_space: {half_life_days: .inf}", "ItemSpaceConfig.half_life_days is inf; allowed: 0 or more"),
        ("recommender: {backbone_layers: -1}", "RecommenderConfig.backbone_layers is -1; allowed: 0 or more"),
        ("recommender: {history: 1001}", "recommender.history is 1001; allowed: up to 1000, half of"),
        (
            "recommender_training: {window: 5}",
            "item_space.window is 10; allowed: that of recommender_training, which is 5",
        ),
        ("item_space: {validation_users: 9}", "item_space.validation_users is 9; allowed: that of"),
        ("name: 2024-01-01\ncodebook: {layers: x}", 'codebook.layers: seen "x" (text); allowed: integer'),
        ("retrain: never\nretrain: auto", "is not YAML: key 'retrain' is given twice"),
        ("a: [", "is not YAML"),
        ("- a", 'seen ["a"] (list); allowed: a mapping of settings'),
        ("", "seen nothing; allowed: a mapping of settings"),
    ],
)
def test_faults(profile, text: str, message: str) -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile(profile(text))
    assert message in str(caught.value)
    assert "profile mine.yaml" in str(caught.value)


def test_all_faults_are_told_at_once(profile) -> None:
    with pytest.raises(ProfileError) as caught:
        load_profile(profile("retrian: never\nhistories: {buckets: many}"))
    assert "retrian" in str(caught.value)
    assert "histories.buckets" in str(caught.value)


@pytest.mark.parametrize("name", ["nowhere", "no/such/file.yaml", "../demo"])
def test_a_profile_that_is_not_there(name: str) -> None:
    with pytest.raises(ProfileError, match=f"profile: seen '{name}'; allowed: .*or a path to a YAML file"):
        load_profile(name)
