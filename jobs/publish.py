"""Publish the day: a gate, then one release, then one atomic switch.

Reads everything that the day's other jobs wrote. Writes ``releases/<id>``, ``releases/CURRENT``, a record of the
switch and, whatever the verdict, ``reports/DAY.html`` for people; the model becomes the version of ``hymirec`` in
MLflow with alias ``champion``. Releases beyond ``keep_releases`` are removed, but for those that an alias names.

The gate (profile section ``gate``) judges the model once more, by the evaluation of the one that was chosen, and what
the release is made of: the index beside exact search, the codes, and users and items beside the release before. If it
says no, the job ends with an error, nothing is published and CURRENT stays. The same inputs give the same release,
byte for byte.

``promote`` (profile or option): ``auto`` switches to a release that passes; ``never`` writes it and leaves CURRENT
and champion alone, until ``python -m jobs.rollback --to ID`` switches; ``dry-run`` writes nothing but the verdict.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.platform import (
    cli,
    columns,
    headline,
    interest_map,
    plots,
    registry,
    releases,
    report,
    retention,
    switches,
    tracking,
    trend,
)
from jobs.platform.errors import GateRefused
from jobs.platform.gate import Verdict, judge_model, judge_release, read_evaluation
from jobs.platform.local import git_commit
from jobs.platform.parts import MODEL_PARTS, find_parts
from jobs.platform.profile import Profile, load_profile
from jobs.platform.release_draft import Draft, new_draft
from jobs.platform.releases import Release
from jobs.platform.warehouse import Partition, Warehouse

CURRENT = "CURRENT"
"""State of a release that is served."""


@dataclass(frozen=True, slots=True)
class Published:
    """What publish made."""

    release: Release
    state: str
    """Whether it is the current release now; if not, why."""
    version: registry.Version
    retired: list[str]
    """Ids of old releases that were removed."""

    def __str__(self) -> str:
        rows = self.release.manifest["rows"]
        sizes = self.release.part_bytes()
        parts = "\n".join(f"  {part:12s} {size / 1e6:9.2f} MB" for part, size in sizes.items())
        retired = f"\nremoved {len(self.retired)} old: {', '.join(self.retired)}" if self.retired else ""
        return (
            f"release {self.release.id} ({self.state}), parent {self.release.parent or 'none'}\n"
            f"{rows['items']:,} items, {rows['interests']:,} users, model {registry.MODEL} version "
            f"{self.version.number}\n{parts}{retired}"
        )


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
    promote: cli.PromoteOption = None,
) -> None:
    """Check the day against the gate and publish it as a release.

    Ends with an error, and leaves CURRENT as it is, when the gate says no.
    """
    settings = load_profile(profile)
    policy = promote or settings.promote
    wh = Warehouse(warehouse)
    parts = find_parts(wh, ds)
    refresh = cli.refresh_id_or_default(refresh_id, ds)
    with tracking.stage("publish", ds=ds, refresh_id=refresh) as run:
        headline.begin(run.refresh, wh, settings, refresh)
        run.params({"gate": settings.gate, "promote": policy})
        parent = releases.before(wh, ds)
        evaluation = read_evaluation(wh, parts["evaluation"])
        model = judge_model(evaluation, settings.gate)
        verdict = Verdict((*model.checks, *judge_release(parts, settings.gate, parent).checks))
        run.metrics(verdict.metrics())
        run.text(verdict.json(), "verdict.json")
        print(verdict)
        stays = f"CURRENT stays {releases.current_id(wh) or 'empty'}"

        def tell(state: str, release: Release | None = None, version: str | None = None) -> None:
            """Tell people: by the report in the warehouse, and by MLflow's run of the refresh."""
            contents = report.collect(
                wh,
                ds,
                refresh,
                state=state,
                verdict=verdict,
                evaluation=evaluation,
                choice=parts["model_choice"].info,
                release=release,
                parent=parent,
                version=version,
            )
            html = report.render(contents)
            run.refresh.text(html, "report.html")
            print(f"report: {report.write(wh, html, ds)}")
            users = parts["interests"].rows or 0
            headline.ended(run.refresh, evaluation, verdict, users=users, state=state, release=release)
            if release is not None:
                run.figure(plots.interest_map(interest_map.of_release(release)), "interest_map.png")
                if days := trend.published_days(wh, ds):
                    run.figure(plots.trend(days), "trend.png")

        if policy == "dry-run":
            run.tags({"hymirec.gate": "passed" if verdict.passed else "refused"})
            tell(state=f"dry run: nothing published, {stays}")
            print(f"dry run: nothing published, {stays}")
        else:
            version = registry.find_or_register(run, {n: wh.local_copy(parts[n]) for n in MODEL_PARTS}, ds)
            if not verdict.passed:
                registry.note_verdict(version, verdict, evaluation)
                tell(state=f"nothing published, {stays}")
                raise GateRefused(f"gate: {verdict.reasons}; nothing published, {stays}")
            draft = write_release(wh, ds, settings, parts, parent, verdict, version)
            published = switch(wh, settings, draft, version, policy)
            current = published.state == CURRENT
            registry.note_verdict(version, verdict, evaluation, draft, current=current)
            run.tags({"hymirec.release": published.release.id})
            run.text(str(published), "report.txt")
            print(published)
            tell(published.state, published.release, version.number)
    tracking.end_refresh(refresh)


def switch(wh: Warehouse, profile: Profile, release: Release, version: registry.Version, policy: str) -> Published:
    """Make a release the current one, and its version the champion.

    Not that of a day before the current one's (a backfill), and none where ``policy`` is never.
    """
    current = releases.current_id(wh)
    before = None if current is None else Release.open(wh, current)
    if before is not None and before.ds > release.ds:
        return Published(release, "not CURRENT: a newer day is published already", version, [])
    if policy == "never":
        return Published(release, "not CURRENT: promote is never", version, [])
    registry.promote(release)  # first: it needs MLflow, and CURRENT must not move without it
    switches.record(release, left=current, kind="publish", who="publish", why=f"refresh of {release.ds}")
    releases.switch(release)
    retired = retention.retire(wh, profile.keep_releases, registry.named_releases().values())
    return Published(release, CURRENT, version, retired)


def write_release(
    wh: Warehouse,
    ds: str,
    profile: Profile,
    parts: dict[str, Partition],
    parent: Release | None,
    verdict: Verdict,
    version: registry.Version,
) -> Release:
    """Write the release of the day; CURRENT is left alone."""
    with new_draft(wh) as draft:
        for name in (*MODEL_PARTS, "interests", "index", "evaluation"):
            shutil.copytree(wh.local_copy(parts[name]), draft.folder / name, copy_function=shutil.copyfile)
        (draft.folder / "evaluation" / "verdict.json").write_text(verdict.json())
        n_items, first_ds = write_items(wh, parts, draft)
        facts: dict[str, Any] = {
            "data": {"from": first_ds, "until": ds, "evaluation_cut": evaluation_cut(draft)},
            "rows": {"items": n_items, "interests": parts["interests"].rows},
            "shapes": {
                "dim": parts["item_vectors"].info["dim"],
                "interests": parts["interests"].info["k"],
                "code_bytes": parts["item_codes"].info["layers"],
                "generations": parts["item_codes"].info["generations"],
            },
            "codebook": {
                name: parts["item_codes"].info[name] for name in ("cosine", "zero_line", "neighbour_recall", "usage")
            },
            "retrieval": {name: parts["interests"].info[name] for name in ("merge", "scale", "buckets")},
            "versions": {
                "encoder": parts["encoder"].info["version"],
                "item_space": parts["item_space"].info["version"],
                "space": parts["item_vectors"].info["space_version"],
                "codebook": parts["item_codes"].info["book"],
                "recommender": parts["interests"].info["model_version"],
            },
            "model": {name: parts["model_choice"].info[name] for name in ("chosen", "why", "refused")},
            "partitions": {name: part.ds for name, part in sorted(parts.items())},
            "model_parts": {name: {"ds": parts[name].ds, "info": parts[name].info} for name in MODEL_PARTS},
            "profile": dataclasses.asdict(profile),
            "git_commit": git_commit(),
            "mlflow": {"model": registry.MODEL, "fingerprint": version.fingerprint},
        }
        return draft.seal(ds, parent.id if parent else None, facts)


def write_items(wh: Warehouse, parts: dict[str, Partition], draft: Draft) -> tuple[int, str]:
    """Write the part ``items``, a batch at a time; return its rows and the first day seen.

    part-00000.parquet holds catalogue and codes side by side; vectors.npy holds the vectors, one row an item in
    the order of item_index, so that readers map it into memory and read only the rows that they need.
    """
    tables = [
        (parts["catalog"], ["item_index", "item_id", "title", "category", "first_ds"]),
        (parts["item_vectors"], ["item_index", "vector"]),
        (parts["item_codes"], ["item_index", "generation", "codes"]),
    ]
    path = draft.folder / "items" / "part-00000.parquet"
    path.parent.mkdir()
    n_items = sum(group.rows for group in columns.row_groups(wh, parts["item_vectors"]))
    shape = (n_items, parts["item_vectors"].info["dim"])
    stored = columns.new_mapped(path.with_name("vectors.npy"), np.float16, shape)
    rows, first_ds, writer = 0, "9999-12-31", None
    try:
        for catalog, vectors, codes in columns.aligned(wh, tables):
            batch = pa.RecordBatch.from_arrays(
                [*catalog.columns[:4], *codes.columns[1:]],
                names=["item_index", "item_id", "title", "category", "generation", "codes"],
            )
            if writer is None:
                writer = pq.ParquetWriter(path, batch.schema, compression="zstd")
            writer.write_batch(batch)
            stored[rows : rows + batch.num_rows] = columns.matrix(vectors.column(1), "item_vectors", "vector")
            rows += batch.num_rows
            first_ds = min(first_ds, *catalog.column(4).to_pylist())
    finally:
        if writer is not None:
            writer.close()
    stored.flush()
    return rows, first_ds


def evaluation_cut(draft: Draft) -> str:
    """Start of the held-out days."""
    return str(json.loads((draft.folder / "evaluation" / "evaluation.json").read_text())["cut"])


if __name__ == "__main__":
    cli.run(main)
