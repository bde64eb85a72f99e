"""Publish the day: a gate, then one release, then one atomic switch.

Reads everything that the day's other jobs wrote. Writes ``releases/<id>`` and ``releases/CURRENT``, and
registers the model as a version of ``hymirec`` in MLflow, alias ``champion``.

The gate (profile section ``gate``) compares the model with the popularity list on the same users, the index
with exact search, and the number of users with the release before. If it says no, the job ends with an error,
nothing is published, nothing is registered and CURRENT stays. The same inputs give the same release, byte for
byte.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.platform import cli, columns, registry, releases, tracking
from jobs.platform.errors import GateRefused
from jobs.platform.parts import MODEL_PARTS, MixedParts, find_parts
from jobs.platform.profile import GateConfig, Profile, load_profile
from jobs.platform.releases import Draft, Release
from jobs.platform.warehouse import Partition, Warehouse

MODEL, POPULARITY, CUT = "HyMiRec", "popularity", "recall@50"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the gate's verdict."""

    name: str
    seen: float
    required: float

    @property
    def holds(self) -> bool:
        return self.seen >= self.required


@dataclass(frozen=True, slots=True)
class Report:
    """What publish made."""

    release: Release
    current: bool
    """Whether it is the current release now."""
    version: registry.Version

    def __str__(self) -> str:
        rows = self.release.manifest["rows"]
        sizes = self.release.part_bytes()
        parts = "\n".join(f"  {part:12s} {size / 1e6:9.2f} MB" for part, size in sizes.items())
        state = "CURRENT" if self.current else "not CURRENT: a newer day is published already"
        news = "new" if self.version.new else "unchanged"
        model = f"model {registry.MODEL} version {self.version.number} ({news})"
        return (
            f"release {self.release.id} ({state}), parent {self.release.parent or 'none'}\n"
            f"{rows['items']:,} items, {rows['interests']:,} users, {model}\n{parts}"
        )


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    profile: cli.ProfileOption = "demo",
    refresh_id: cli.RefreshIdOption = None,
) -> None:
    """Check the day against the gate and publish it as a release.

    Ends with an error, and leaves CURRENT as it is, when the gate says no.
    """
    settings = load_profile(profile)
    wh = Warehouse(warehouse)
    parts = find_parts(wh, ds)
    refresh = cli.refresh_id_or_default(refresh_id, ds)
    with tracking.stage("publish", ds=ds, refresh_id=refresh) as run:
        run.params({"gate": settings.gate})
        parent = releases.before(wh, ds)
        checks = verdict(wh, parts, settings.gate, parent)
        run.metrics({f"gate_{check.name}": check.seen for check in checks})
        run.text(table(checks), "verdict.txt")
        print(table(checks))
        if not all(check.holds for check in checks):
            failed = ", ".join(f"{c.name} {c.seen:.4f} is below {c.required:.4f}" for c in checks if not c.holds)
            raise GateRefused(f"gate: {failed}; nothing published, CURRENT stays {releases.current_id(wh) or 'empty'}")
        report = publish(wh, ds, settings, parts, parent, run)
        run.tags({"hymirec.release": report.release.id})
        run.text(str(report), "report.txt")
    tracking.end_refresh(refresh)
    print(report)


def verdict(wh: Warehouse, parts: dict[str, Partition], gate: GateConfig, parent: Release | None) -> list[Check]:
    """The gate's checks."""
    evaluation = json.loads((wh.local_copy(parts["evaluation"]) / "evaluation.json").read_text())
    rows = {row["name"]: row for row in evaluation["rows"]}
    for name in (MODEL, POPULARITY):
        if name not in rows:
            raise MixedParts(
                f"evaluation.json: seen rows {', '.join(rows)}; allowed: {name} among them; evaluate again"
            )
    model, popularity = rows[MODEL][CUT]["mean"], rows[POPULARITY][CUT]["mean"]
    checks = [
        Check(CUT.replace("@", "_at_"), model, gate.min_ratio_to_popularity * popularity),
        Check("index_recall", parts["index"].info["recall"], gate.min_index_recall),
    ]
    if parent is not None:
        checks.append(
            Check(
                "users",
                parts["interests"].rows or 0,
                gate.min_users_ratio * parent.manifest["rows"]["interests"],
            )
        )
    return checks


def table(checks: list[Check]) -> str:
    """The verdict as text."""
    lines = [f"gate: {'passed' if all(check.holds for check in checks) else 'REFUSED'}"]
    lines += [
        f"  {check.name:14s} {check.seen:12.4f}  at least {check.required:12.4f}  {'ok' if check.holds else 'NO'}"
        for check in checks
    ]
    return "\n".join(lines)


def publish(
    wh: Warehouse,
    ds: str,
    profile: Profile,
    parts: dict[str, Partition],
    parent: Release | None,
    run: tracking.StageRun,
) -> Report:
    """Write the release, switch to it, and register its model.

    A release of a day before the current one's (a backfill) is written but not switched to.
    """
    version = registry.find_or_register(run, {name: wh.local_copy(parts[name]) for name in MODEL_PARTS}, ds)
    with releases.draft(wh) as draft:
        for name in (*MODEL_PARTS, "interests", "index", "evaluation"):
            shutil.copytree(wh.local_copy(parts[name]), draft.folder / name, copy_function=shutil.copyfile)
        n_items, first_ds = write_items(wh, parts, draft)
        facts = {
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
                "codebook": parts["item_codes"].info["book"],
                "recommender": parts["interests"].info["model_version"],
            },
            "partitions": {name: part.ds for name, part in sorted(parts.items())},
            "profile": dataclasses.asdict(profile),
            "git_commit": git_commit(),
            "mlflow": {"model": registry.MODEL, "version": version.number, "run_id": version.run_id},
        }
        release = draft.seal(ds, parent.id if parent else None, facts)
    current = releases.current_id(wh)
    newer = current is not None and Release.open(wh, current).ds > ds
    if not newer:
        releases.switch(release)
        registry.promote(version, release.id)
    return Report(release, not newer, version)


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
    stored = np.lib.format.open_memmap(path.with_name("vectors.npy"), "w+", np.float16, shape)
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


def git_commit() -> str | None:
    """Commit of the code that runs, None outside of a git work tree."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    cli.run(main)
