"""One run at a time, oldest day first: Airflow's own limit does not count the runs of a backfill.

A run waits in its task ``resolve``, in no slot, until it is its turn. Three things keep it waiting: a run that is past
``resolve``, an earlier day that waits too, and a foreground run in the same warehouse.
"""

from __future__ import annotations

import os
from typing import Any

from jobs.platform import foreground_lock
from jobs.platform.warehouse import Warehouse

_WAITING = ["scheduled", "queued", "running", "up_for_reschedule", "up_for_retry"]


def ahead(ti: Any, warehouse: str) -> str | None:
    """Return what is ahead of the run of this task instance; None when it is its turn."""
    if os.environ.get("HYMIREC_FOREGROUND"):  # its database knows no others, but may remember one that was killed
        return None
    if held := foreground_lock.holder(Warehouse(warehouse)):
        return f"the foreground run of {held} in this warehouse"
    earlier = ti.get_previous_dagrun(state="running")
    if earlier is not None:
        return f"{earlier.run_id}, the run of an earlier day"
    running = ti.get_dr_count(ti.dag_id, states=["running"])
    waiting = ti.get_ti_count(ti.dag_id, task_ids=[ti.task_id], states=_WAITING)
    if running > waiting:
        return "a run that is at work already"
    dated = ti.get_template_context()["dag_run"].logical_date is not None
    return None if dated or waiting == 1 else "the runs of days that wait too"
