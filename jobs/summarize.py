"""Summarise the current release: sizes, quality, time of its tasks, and one user explained.

Reads the release, ``histories`` of its day, and MLflow. Writes nothing.
"""

from __future__ import annotations

from rich.table import Table

from jobs.platform import cli, explain, scorecard, timings
from jobs.platform.releases import Release
from jobs.platform.warehouse import Warehouse


def main(warehouse: cli.WarehouseOption) -> None:
    """Summarise the current release: sizes, quality beside simple rankings, time by task, and one user
    explained."""
    wh = Warehouse(warehouse)
    release = Release.open(wh)
    evaluation = release.evaluation()
    console = cli.console()
    console.print(sizes(release))
    for table in scorecard.render(evaluation):
        console.print(table)
    console.print(times(timings.of_release(release.id)))
    console.print(explain.render(explain.explain(wh, release, explain.median_user(release))))


def sizes(release: Release) -> Table:
    """What the release holds."""
    manifest, data = release.manifest, release.manifest["data"]
    rows, shapes, retrieval = manifest["rows"], manifest["shapes"], manifest["retrieval"]
    table = Table(title=f"release {release.id}", title_justify="left")
    for name in ("part", "MB", "content"):
        table.add_column(name, justify="right" if name == "MB" else "left")
    content = {
        "items": f"{rows['items']:,}: vectors of {shapes['dim']}, codes of {shapes['code_bytes']} bytes",
        "interests": f"{rows['interests']:,} users: {shapes['interests']} interests of {shapes['dim']}",
        "index": f"merge {retrieval['merge']}, scale {retrieval['scale']:.1f}",
        "evaluation": f"held out {data['evaluation_cut'][:10]} to {data['until']}",
        "encoder": manifest["versions"]["encoder"],
        "item_space": manifest["versions"]["item_space"],
        "codebook": f"{manifest['versions']['codebook']}, {shapes['generations']} generation(s)",
        "recommender": manifest["versions"]["recommender"],
    }
    for part, size in release.part_bytes().items():
        table.add_row(part, f"{size / 1e6:.2f}", str(content.get(part, "")))
    return table


def times(found: timings.Timings | None) -> Table:
    """Time by task."""
    table = Table(title="time by task", title_justify="left")
    table.add_column("task")
    table.add_column("seconds", justify="right")
    if found is None:
        table.caption = "this MLflow has no run that published the release"
        return table
    for name, seconds in found.tasks:
        table.add_row(name, f"{seconds:.1f}")
    if found.total is not None:
        table.add_section()
        table.add_row("whole refresh, starts of processes included", f"{found.total:.1f}")
    return table


if __name__ == "__main__":
    cli.run(main)
