from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.platform.errors import JobError
from jobs.platform.parts import keep
from jobs.platform.profile import Profile
from jobs.platform.training import evaluation_cut, facts_of, training_histories, version_of, why_due
from jobs.platform.warehouse import Partition, Warehouse
from tests.small_model import DAY, table, write_histories

PROFILE = Profile(name="p")


def model_of(wh: Warehouse, ds: str, profile: Profile = PROFILE) -> Partition:
    with wh.write_partition("encoder", ds) as part:
        (part.local / "config.json").write_text(ds)
        part.info |= facts_of(ds, profile, "encoder")
    return wh.partition("encoder", ds)


@pytest.mark.parametrize(
    ("age", "policy", "override", "reason"),
    [
        (None, "auto", None, "there is no model yet"),
        (None, "never", "always", "there is no model yet"),
        (6, "auto", None, ""),
        (7, "auto", None, "the model of 2020-03-13 is 7 days old (retrain_every_days: 7)"),
        (30, "never", None, ""),
        (30, "auto", "never", ""),
        (1, "always", None, "retrain is always"),
        (1, "auto", "always", "retrain is always"),
        (1, "always", "auto", ""),
    ],
)
def test_when_a_model_is_due(
    warehouse: Warehouse, age: int | None, policy: str, override: str | None, reason: str
) -> None:
    day = datetime.date.fromisoformat(DAY)
    newest = None if age is None else model_of(warehouse, str(day - datetime.timedelta(days=age)))
    profile = replace(PROFILE, retrain=policy)  # type: ignore[arg-type]
    assert why_due(warehouse, newest, DAY, profile, override, "encoder") == reason


def test_a_changed_section_of_the_profile_makes_a_model_due(warehouse: Warehouse) -> None:
    newest = model_of(warehouse, "2020-03-19")
    other = replace(PROFILE, encoder=replace(PROFILE.encoder, max_tokens=7))
    why = why_due(warehouse, newest, DAY, other, None, "encoder")
    assert why == "the profile changed encoder.max_tokens from 48 to 7"
    gate = replace(PROFILE, gate=replace(PROFILE.gate, min_index_recall=0.5))
    assert why_due(warehouse, newest, DAY, gate, None, "encoder") == ""
    with pytest.raises(JobError, match=r"retrain is never, but .* changed encoder.max_tokens .* auto or always"):
        why_due(warehouse, newest, DAY, other, "never", "encoder")


def test_so_does_a_single_setting_of_another_section(warehouse: Warehouse) -> None:
    with warehouse.write_partition("recommender", "2020-03-19") as part:
        (part.local / "config.json").write_text("{}")
        part.info |= facts_of("2020-03-19", PROFILE, "evaluation.mask_seen")
    newest = warehouse.partition("recommender", "2020-03-19")
    masked = replace(PROFILE, evaluation=replace(PROFILE.evaluation, mask_seen=True))
    why = why_due(warehouse, newest, DAY, masked, None, "evaluation.mask_seen")
    assert why == "the profile changed evaluation.mask_seen from False to True"
    other = replace(PROFILE, evaluation=replace(PROFILE.evaluation, bootstrap=7))
    assert why_due(warehouse, newest, DAY, other, None, "evaluation.mask_seen") == ""


def test_a_model_is_due_that_has_seen_what_is_held_out_now(warehouse: Warehouse) -> None:
    newest = model_of(warehouse, "2020-03-19")
    more, fewer = (replace(PROFILE, evaluation=replace(PROFILE.evaluation, holdout_days=days)) for days in (28, 1))
    why = why_due(warehouse, newest, DAY, more, None, "encoder")
    assert why == "evaluation.holdout_days holds out events from 2020-02-22 on, and the model has seen some"
    assert why_due(warehouse, newest, DAY, fewer, None, "encoder") == ""


@pytest.mark.parametrize(("override", "reason"), [(None, ""), ("auto", ""), ("always", "retrain is always")])
def test_no_model_is_due_where_the_days_model_was_refused(
    warehouse: Warehouse, override: str | None, reason: str
) -> None:
    newest = model_of(warehouse, "2020-02-01")
    profile = replace(PROFILE, retrain="always")
    with warehouse.write_partition("model_choice", DAY) as part:
        (part.local / "choice.json").write_text("{}")
        part.info["chosen"] = "champion"
    assert why_due(warehouse, newest, DAY, profile, override, "encoder") == reason
    assert why_due(warehouse, newest, "2020-03-21", profile, None, "encoder") == "retrain is always"


def test_a_kept_model_replaces_one_that_another_run_of_the_day_trained(warehouse: Warehouse) -> None:
    earlier = model_of(warehouse, "2020-03-13")
    keep(warehouse, earlier, DAY)
    assert warehouse.partitions("encoder") == ["2020-03-13"]
    model_of(warehouse, DAY)
    keep(warehouse, earlier, DAY)
    found = warehouse.partition("encoder", DAY)
    assert (warehouse.local_copy(found) / "config.json").read_text() == "2020-03-13"
    assert found.info == earlier.info, "its age counts from the day it was trained"


@pytest.mark.parametrize(("policy", "override"), [("never", None), ("auto", "never")])
def test_no_model_and_no_training_is_refused(warehouse: Warehouse, policy: str, override: str | None) -> None:
    with pytest.raises(JobError, match=f"before ds={DAY} there is no model yet; allowed: auto or always"):
        why_due(warehouse, None, DAY, Profile(name="p", retrain=policy), override)  # type: ignore[arg-type]


def test_held_out_days_end_with_the_day_itself() -> None:
    assert evaluation_cut(DAY, 7).isoformat() == "2020-03-14T00:00:00+00:00"
    assert evaluation_cut(DAY, 1).isoformat() == "2020-03-20T00:00:00+00:00"


def test_training_sees_nothing_of_the_held_out_days(warehouse: Warehouse) -> None:
    rows = table(30, 50)
    write_histories(warehouse, rows)
    cut = int(evaluation_cut(DAY, 7).timestamp())
    found = training_histories(warehouse, DAY, Profile(name="p"))
    stamps = [stamp for stamps in rows["timestamps"].to_pylist() for stamp in stamps]
    first = dict(zip(rows["user_id"].to_pylist(), map(min, rows["timestamps"].to_pylist()), strict=True))
    assert found.user_ids.tolist() == sorted(user for user, stamp in first.items() if stamp < cut)
    assert found.timestamps.max() < cut <= max(stamps)
    assert len(found.items) == sum(stamp < cut for stamp in stamps)


def test_nothing_before_the_held_out_days_is_refused(warehouse: Warehouse) -> None:
    rows = table(5, 50)
    late = [[1_584_700_000] * len(stamps) for stamps in rows["timestamps"].to_pylist()]
    write_histories(warehouse, rows.set_column(2, rows.schema.field("timestamps"), [late]))
    with pytest.raises(JobError, match="seen no event before 2020-03-14, where the held-out days begin"):
        training_histories(warehouse, DAY, Profile(name="p"))


def test_version_tells_names_and_contents_apart(tmp_path: Path) -> None:
    versions = set()
    for folder, name, text in (("a", "x", "1"), ("b", "x", "2"), ("c", "y", "1"), ("d", "x", "1")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
        versions.add(version_of(tmp_path / folder))
    assert len(versions) == 3 and version_of(tmp_path / "a") == version_of(tmp_path / "d")
