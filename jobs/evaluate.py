"""Evaluate the day's model on held-out days, beside the champion and rankings that learn nothing, on the same users.

Reads ``histories/ds``, ``item_vectors/ds``, ``item_codes/ds``, the newest recommender and codebook, and the release
before the day. Writes ``evaluation/ds``: evaluation.json (the means, with 95 % bootstrap intervals) and users.parquet
(every user's figures).

The last ``evaluation.holdout_days`` days up to ds are held out. A user counts with at least one event before
them and one in them. Every ranking orders the whole catalogue, and relevant is each distinct item that the
user took in the held-out days. "new items" counts those only that the user never took before, in lists that leave
out what the user took. The champion is the model of the release before, as it was released; the day's model is its
challenger when any of item space, codebook and recommender is another one.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from hymirec_model.baselines import Baseline, CoOccurrence, OwnRepeats, Popularity, rank
from hymirec_model.config import EvaluationConfig
from hymirec_model.histories import Histories, Ints
from hymirec_model.losses import mean_pairwise_cosine
from hymirec_model.metrics import Relevant
from hymirec_model.popularity_shift import PopularityShift
from hymirec_model.retrieval import top_items_each
from jobs.platform import cli, columns, headline, plots, tracking
from jobs.platform.champion import Champion
from jobs.platform.datasets import dataset
from jobs.platform.errors import JobError
from jobs.platform.popularity import by_popularity
from jobs.platform.profile import HistoriesConfig, load_profile
from jobs.platform.scorecard import CHAMPION, LIST, MODEL, Scorecard, as_text, mean_of, render, sentence
from jobs.platform.tracked_runs import metric_name
from jobs.platform.training import evaluation_cut, read_histories
from jobs.platform.user_models import ModelParts
from jobs.platform.warehouse import Partition, Warehouse

if TYPE_CHECKING:
    from hymirec_model.inference import Floats, UserModel

BASELINES: dict[str, type[Baseline]] = {
    "popularity": Popularity,
    "co-occurrence": CoOccurrence,
    "own repeats": OwnRepeats,
}


class Lists(NamedTuple):
    """Items for the users of a task, best first, of shape (U, LIST); -1 where a catalogue is shorter."""

    everything: Ints
    unseen: Ints
    """Without a user's own."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is ranked for whom, and what counts as right."""

    everyone: Histories
    """All users' events before the cut."""
    past: Histories
    """Those of the evaluated users."""
    relevant: Relevant
    new: Relevant
    cut: int
    """Seconds since 1970; the held-out days begin here."""


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Evaluate the day's model on held-out days, beside popularity, co-occurrence and own repeats.

    Writes evaluation: evaluation.json and users.parquet.
    """
    settings = load_profile(profile)
    config = settings.evaluation
    wh = Warehouse(warehouse)
    histories, parts = wh.partition("histories", ds), ModelParts.find(wh, ds)
    with tracking.stage("evaluate", ds=ds, refresh_id=cli.refresh_id_or_default(refresh_id, ds)) as run:
        run.params({"evaluation": config})
        run.inputs([dataset(wh, histories), dataset(wh, parts.vectors)], "evaluation")
        evaluation = evaluate(wh, ds, config, histories, parts, settings.histories)
        run.metrics(flat_metrics(evaluation))
        text = as_text(render(evaluation))
        run.text(text, "report.txt")
        run.text(json.dumps(evaluation, indent=1), "evaluation.json")
        run.figure(plots.recall_by_history(evaluation["by_history"]), "recall_by_history.png")
        run.figure(plots.coverage_by_popularity(evaluation["by_popularity"]), "coverage_by_popularity.png")
        headline.evaluated(run.refresh, evaluation)
    if (evaluation["champion"] or {}).get("trained_on_held_out"):
        print(
            f"champion: not compared, it was trained on days from {evaluation['cut'][:10]} on, which are held out now"
        )
    print(f"{text}\n{sentence(evaluation)}")


def evaluate(
    wh: Warehouse,
    ds: str,
    config: EvaluationConfig,
    histories: Partition,
    parts: ModelParts,
    stored: HistoriesConfig = HistoriesConfig(),  # noqa: B008
) -> dict[str, Any]:
    """Write evaluation/ds and return the content of evaluation.json.

    Raises
    ------
    JobError
        If nobody has events both before and in the held-out days.
    """
    cut = evaluation_cut(ds, config.holdout_days)
    task = set_task(read_histories(wh, ds, stored.sample_users), cut, config)
    vectors = columns.vectors(wh, parts.vectors).astype(np.float32)
    n_items = len(vectors)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = parts.load(wh, device)
    interests = model.interests(task.past)
    calibration = parts.calibration_vectors(wh)
    shift = model.shift(PopularityShift(task.everyone, n_items), task.cut)
    made = {MODEL: rank_by_interests(model, interests, task.past, vectors, calibration, shift, config.seed)}
    champion = Champion.of(wh, ds, parts)
    rivals = champion is not None and not champion.same_model and champion.cut <= cut.date().isoformat()
    if champion is not None and rivals:
        made[CHAMPION] = champion_lists(champion, task, wh.read(parts.vectors, ["item_id"]), config, device)
    for name, kind in BASELINES.items():
        rank_all = partial(rank, kind().fit(task.everyone, n_items, task.cut), task.past, LIST, seed=config.seed)
        made[name] = Lists(rank_all(), rank_all(mask_seen=True))
    unseen = {name: found.unseen for name, found in made.items()}
    lists = unseen if config.mask_seen else {name: found.everything for name, found in made.items()}
    n_history = np.diff(task.past.offsets)
    card = Scorecard.measure(lists, unseen, task.relevant, task.new, n_history, n_items)
    evaluation = {
        "users": len(task.past),
        "items": n_items,
        "cut": cut.isoformat(),
        "holdout_days": config.holdout_days,
        "mask_seen": config.mask_seen,
        "model_version": parts.recommender.info["model_version"],
        "pairwise_interest_cosine": float(mean_pairwise_cosine(torch.from_numpy(interests))),
        "champion": None
        if champion is None
        else {
            "release": champion.release.id,
            "same_model": champion.same_model,
            "trained_on_held_out": champion.cut > cut.date().isoformat(),
            "cohorts": card.compare(MODEL, CHAMPION, config.sparse_events, config.bootstrap, config.seed)
            if rivals
            else [],
        },
        "rows": card.rows(config.bootstrap, config.seed),
        "leads": card.leads(MODEL, config.bootstrap, config.seed),
        "by_history": card.by_history(config.bootstrap, config.seed),
        "by_popularity": by_popularity(lists, task.relevant, np.bincount(task.everyone.items, minlength=n_items)),
    }
    with wh.write_partition("evaluation", ds) as part:
        part.write_table(user_table(card, task), "users.parquet")
        (part.local / "evaluation.json").write_text(
            json.dumps(evaluation, indent=1, sort_keys=True, allow_nan=False) + "\n"
        )
        part.info |= {"cut": cut.isoformat(), "model_version": parts.recommender.info["model_version"]}
        part.info |= {"versions": parts.versions}
    return evaluation


def set_task(histories: Histories, cut: datetime.datetime, config: EvaluationConfig) -> Task:
    """Choose the users and what is relevant for each; with ``mask_seen`` only what a user had not had before.

    Raises
    ------
    JobError
        If there are none.
    """
    moment = int(cut.timestamp())
    before, since = histories.before(moment), histories.since(moment)
    active = np.flatnonzero((np.diff(before.offsets) > 0) & (np.diff(since.offsets) > 0))
    past, taken = before.of_users(active), since.of_users(active)
    span = int(histories.items.max(initial=0)) + 1
    if config.mask_seen:  # nobody is offered what they had, so nobody is asked for it
        taken = taken.keep(~np.isin(taken.users * span + taken.items, past.users * span + past.items))
    users = np.flatnonzero(np.diff(taken.offsets) > 0)
    if not len(users):
        new = ", the latter of items that they had not had," if config.mask_seen else ""
        raise JobError(
            f"evaluation: seen {len(histories):,} users, none with events both before {cut:%Y-%m-%d} and in "
            f"the {config.holdout_days} days from then on{new}; allowed: 1 or more; import more days, choose "
            "another ds, or change evaluation.holdout_days in the profile"
        )
    users = np.sort(np.random.default_rng(config.seed).permutation(users)[: config.max_users])
    past, taken = past.of_users(users), taken.of_users(users)
    pairs = np.unique(taken.users * span + taken.items)
    fresh = pairs[~np.isin(pairs, past.users * span + past.items)]
    return Task(before, past, _ragged(pairs, span, len(users)), _ragged(fresh, span, len(users)), moment)


def rank_by_interests(
    model: UserModel,
    interests: Floats,
    past: Histories,
    vectors: Floats,
    calibration: Floats,
    shift: Floats,
    seed: int,
) -> Lists:
    """A model's lists by exact search.

    Parameters
    ----------
    model : UserModel
    interests : float32 array of shape (U, K, d)
    past : Histories
        The users' events: their own items.
    vectors : float32 array of shape (n, d)
    calibration : float32 array of shape (s, d)
        See :func:`hymirec_model.inference.interest_weights`.
    shift : float32 array of shape (n,)
        Added to the items' scores.
    seed : int
        Of the order among equal scores.
    """
    from hymirec_model.inference import interest_weights

    device = next(model.model.parameters()).device
    weights = interest_weights(interests, model.merge, model.scale, calibration)
    width = min(LIST, len(vectors))
    unseen, (everything,) = top_items_each(
        torch.from_numpy(interests).to(device),
        torch.from_numpy(weights).to(device),
        torch.from_numpy(vectors).to(device),
        width,
        model.merge,
        model.scale,
        bonuses=[model.bonus(past)],
        shift=torch.from_numpy(shift),
        seed=seed,
    )
    padding = ((0, 0), (0, LIST - width))
    return Lists(*(np.pad(found.cpu().numpy(), padding, constant_values=-1) for found in (everything, unseen)))


def champion_lists(
    champion: Champion, task: Task, items: pa.Table, config: EvaluationConfig, device: torch.device
) -> Lists:
    """The champion's lists in the numbers of ``items``: it neither reads nor finds what came after its release."""
    today = champion.numbers(items["item_id"].combine_chunks())
    model, vectors, calibration = champion.load(device)
    own = np.full(len(items), -1)
    own[today[today >= 0]] = np.flatnonzero(today >= 0)
    past = task.past.only_items(own >= 0)
    past = replace(past, items=own[past.items])
    everyone = task.everyone.only_items(own >= 0)
    log = PopularityShift(replace(everyone, items=own[everyone.items]), len(vectors))
    shift = model.shift(log, task.cut)
    found = rank_by_interests(model, model.interests(past), past, vectors, calibration, shift, config.seed)
    return Lists(*(np.where(items_UL >= 0, today[items_UL], -1) for items_UL in (found.everything, found.unseen)))


def user_table(card: Scorecard, task: Task) -> pa.Table:
    """One row a user: user_id, n_history, n_relevant, and a column "<ranking> <metric>" for each."""
    columns_: dict[str, Any] = {
        "user_id": pa.array(task.past.user_ids, pa.string()),
        "n_history": pa.array(card.n_history, pa.int64()),
        "n_relevant": pa.array(np.diff(task.relevant[0]), pa.int64()),
    }
    for name, figures in card.per_user.items():
        for metric, values in figures.items():
            columns_[f"{name} {metric}"] = pa.array(values, pa.float64(), from_pandas=True)
    return pa.table(columns_)


def flat_metrics(evaluation: dict[str, Any]) -> dict[str, float]:
    """Means by "<ranking>/<metric>", in characters that MLflow takes."""
    flat = {"users": float(evaluation["users"])}
    for row in evaluation["rows"]:
        for metric, value in row.items():
            if metric != "name" and (mean := mean_of(value)) is not None:
                flat[metric_name(f"{row['name']}/{metric}")] = mean
    return flat


def _ragged(pairs: Ints, span: int, n_users: int) -> Relevant:
    counts = np.bincount(pairs // span, minlength=n_users)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), pairs % span


if __name__ == "__main__":
    cli.run(main)
