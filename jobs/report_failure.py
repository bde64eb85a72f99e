"""Write the page of a day whose refresh failed, for people: what failed, why, what to do, and what is served meanwhile.

Writes ``reports/DAY.html`` and, where MLflow answers, ``report.html`` in its run of the refresh. The DAG starts it when
a task has failed for good. A refusal by publish has a page of its own already, which stays.
"""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.platform import cli, releases, report, tracking
from jobs.platform.errors import TrackingError
from jobs.platform.resolver import released_day
from jobs.platform.warehouse import Warehouse

_REFUSED = "publish: error: gate: "


def main(
    warehouse: cli.WarehouseOption,
    ds: cli.DsOption,
    refresh_id: Annotated[str, typer.Option(help="MLflow parent run of the refresh.")],
    task: Annotated[str, typer.Option(help="The task that failed.")],
    error: Annotated[str, typer.Option(help="Its last words.")],
    advice: Annotated[str, typer.Option(help="What to do about it.")] = "",
) -> None:
    """Write the page of a day whose refresh failed."""
    if error.startswith(_REFUSED):
        print("publish has told already why it refused the day")
        return
    wh = Warehouse(warehouse)
    state = f"Nothing was published; CURRENT stays {releases.current_id(wh) or 'empty'}"
    if released_day(wh) == ds:  # by an earlier run, or publish failed once it had switched
        state = f"CURRENT is {releases.current_id(wh)}, a release of this very day"
    try:
        tasks = report.tasks_so_far(refresh_id)
    except TrackingError as missing:  # it may be what the task failed of: the page comes first
        print(f"without times of tasks: {missing}")
        tasks = []
    html = report.render_failure(report.Failure(ds, refresh_id, task, error, advice, state, tasks))
    print(f"report: {report.write(wh, html, ds)}")
    tracking.add_to_refresh(refresh_id, html, "report.html")


if __name__ == "__main__":
    cli.run(main)
