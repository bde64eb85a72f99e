"""Choose the model that serves the day: the one that was trained, or the champion it was to replace.

Reads ``evaluation/ds``, the newest model parts and the release before the day. Writes ``model_choice/ds`` and, in
MLflow, registers a model that is not the champion's as a version of ``hymirec``, alias ``challenger``, with the gate's
verdict as a tag.

A challenger that the gate refuses, or that was rolled back before, does not stop the day: the champion's parts come
back into force on ``ds``, the DAG computes the day's vectors, codes and evaluation with them, and today's users and
items are released. Where there is no champion to go back to, the job ends with an error and nothing is published.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from jobs.platform import cli, headline, model_choice, registry, switches, tracking
from jobs.platform.errors import GateRefused
from jobs.platform.gate import Check, Verdict, judge_model, read_evaluation
from jobs.platform.model_choice import Chosen
from jobs.platform.parts import model_parts
from jobs.platform.profile import GateConfig, load_profile
from jobs.platform.releases import Release
from jobs.platform.tracked_runs import StageRun
from jobs.platform.warehouse import Partition, Warehouse


@dataclass(frozen=True, slots=True)
class Report:
    """What choose_model decided."""

    chosen: Chosen
    why: str
    verdict: Verdict | None
    """None where an earlier run of the day decided already."""

    def __str__(self) -> str:
        head = f"{self.verdict}\n" if self.verdict else ""
        return f"{head}model: {self.chosen} serves ({self.why})"


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Choose between the model that was trained and the champion.

    Writes model_choice; after a refusal the champion's parts are in force again.
    """
    settings = load_profile(profile)
    wh = Warehouse(warehouse)
    evaluation = wh.partition("evaluation", ds)
    with tracking.stage("choose_model", ds=ds, refresh_id=cli.refresh_id_or_default(refresh_id, ds)) as run:
        run.params({"gate": settings.gate})
        report = choose(wh, ds, settings.gate, evaluation, run)
        for where in (run, run.refresh):
            where.tags({"hymirec.chosen": report.chosen})
        run.text(str(report), "report.txt")
    print(report)


def choose(wh: Warehouse, ds: str, gate: GateConfig, partition: Partition, run: StageRun) -> Report:
    """Write model_choice/ds and, after a refusal, put the champion's parts in force.

    Raises
    ------
    GateRefused
        If the gate refuses the model and there is no champion to go back to.
    """
    evaluation, versions = read_evaluation(wh, partition), partition.info["versions"]
    champion = Release.open(wh, evaluation["champion"]["release"]) if evaluation["champion"] else None
    same = champion is not None and evaluation["champion"]["same_model"]
    earlier = wh.find(model_choice.TABLE, ds)
    refusal = earlier.info["refused"] if earlier is not None else None
    cut_short = refusal and refusal["versions"] == versions != model_choice.versions_in_force(wh, ds)
    if champion is not None and earlier is not None and refusal and (same or cut_short):
        # Cleared and run again: the refusal stands. Where the refused model is in force again, as after a switch to
        # its release, it is judged anew.
        model_choice.restore_parts(wh, champion, ds)
        return Report("champion", earlier.info["why"], None)

    verdict = judge_model(evaluation, gate)
    if not same:
        verdict = Verdict((*verdict.checks, _not_rolled_back(wh, versions)))
    run.metrics(verdict.metrics())
    run.text(verdict.json(), "verdict.json")
    refused: dict[str, Any] | None = None
    if not same:
        parts = {name: wh.local_copy(part) for name, part in model_parts(wh, ds).items()}
        version = registry.find_or_register(run, parts, ds)
        registry.challenge(version, verdict, evaluation)
        refused = {"versions": versions, "fingerprint": version.fingerprint, "reasons": verdict.reasons}
    if not verdict.passed and (champion is None or same):
        run.refresh.tags({headline.GATE_TAG: "refused", "hymirec.state": "nothing published"})
        raise GateRefused(f"gate: {verdict.reasons}; {_no_way_back(champion)}")
    chosen: Chosen = "champion" if not verdict.passed else "same model" if same else "challenger"
    why = {
        "champion": f"the challenger was refused: {verdict.reasons}",
        "challenger": "it passed the gate" + ("" if champion else "; there is no release before"),
        "same model": f"nothing was trained since release {champion.id if champion else ''}",
    }[chosen]
    if chosen == "champion" and champion is not None:
        versions = {name: champion.manifest["versions"][name] for name in versions}
    with wh.write_partition(model_choice.TABLE, ds) as part:
        part.info |= {"chosen": chosen, "why": why, "versions": versions}
        part.info |= {"refused": refused if chosen == "champion" else None}
        (part.local / "choice.json").write_text(json.dumps(part.info, indent=1, sort_keys=True) + "\n")
    if chosen == "champion" and champion is not None:
        model_choice.restore_parts(wh, champion, ds)
    return Report(chosen, why, verdict)


def _not_rolled_back(wh: Warehouse, versions: dict[str, str]) -> Check:
    """A model that was rolled back would be trained again on the same day, and pass again."""
    record = switches.rolled_back(wh, versions["recommender"])
    allowed = "0" if record is None else f"0 (rolled back on {record['when'][:10]} by {record['who']}: {record['why']})"
    return Check("times rolled back", float(record is not None), allowed, record is None)


def _no_way_back(champion: Release | None) -> str:
    if champion is None:
        return "there is no champion to serve instead; nothing published"
    return f"it is the champion itself, of release {champion.id}; nothing published, that release stays"


if __name__ == "__main__":
    cli.run(main)
