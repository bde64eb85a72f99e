"""The few calls to Airflow's REST API that the local commands need. Standard library only."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import quote

_SECONDS = 10


def get_json(url: str, token: str | None = None, body: dict[str, Any] | None = None, method: str | None = None) -> Any:
    """Return the JSON (or the text) at ``url``; None if nobody answers there or the answer is an error."""
    request = urllib.request.Request(url, data=None if body is None else json.dumps(body).encode(), method=method)
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return text


class AirflowApi:
    """Airflow's API as the user admin.

    Parameters
    ----------
    url : str
        Address of the api-server.
    passwords : Path
        File in which Airflow's simple auth manager keeps the passwords that it made.
    """

    def __init__(self, url: str, passwords: Path) -> None:
        self._url = url
        self._passwords = passwords
        self._token: str | None = None

    def knows(self, dag: str) -> bool:
        """Tell whether the DAG is there and can be triggered."""
        found = self.get(f"dags/{dag}")
        return bool(found) and not found["is_paused"]

    def runs(self, dag: str, limit: int) -> list[dict[str, Any]]:
        """Return the latest runs, newest first."""
        found = self.get(f"dags/{dag}/dagRuns?order_by=-run_after&limit={limit}")
        return list(found["dag_runs"]) if found else []

    def running(self, dag: str) -> list[dict[str, Any]]:
        """Return the runs that are at work."""
        found = self.get(f"dags/{dag}/dagRuns?state=running")
        return list(found["dag_runs"]) if found else []

    def run(self, dag: str, run_id: str) -> dict[str, Any]:
        """Return one run."""
        return dict(self.get(f"dags/{dag}/dagRuns/{quote(run_id)}") or {})

    def tasks(self, dag: str, run_id: str) -> list[dict[str, Any]]:
        """Return the task instances of a run, in the order in which they ran or will run."""
        found = self.get(f"dags/{dag}/dagRuns/{quote(run_id)}/taskInstances")
        return sorted(found["task_instances"], key=lambda t: (t["start_date"] or "9",)) if found else []

    def pause_backfills(self, dag: str, pause: bool) -> bool:
        """Let the DAG's backfills that are not completed begin no further run, or go on; tell whether Airflow did so.

        Runs that have begun go on. SQLite may refuse while the scheduler writes: ask again.
        """
        found = self.get(f"backfills?dag_id={dag}")
        unfinished = [one for one in found["backfills"] if one["completed_at"] is None] if found else []
        other = [one["id"] for one in unfinished if one["is_paused"] != pause]
        answers = [self.get(f"backfills/{one}/{'pause' if pause else 'unpause'}", method="PUT") for one in other]
        return found is not None and None not in answers

    def reason(self, dag: str, task: dict[str, Any]) -> str:
        """Return why a task failed, empty if its log does not say."""
        base = f"dags/{dag}/dagRuns/{quote(task['dag_run_id'])}/taskInstances/{task['task_id']}"
        log = self.get(f"{base}/logs/{task['try_number']}?full_content=true") or {}
        messages = [entry for entry in log.get("content", []) if isinstance(entry, dict)]
        errors = [entry["error_detail"] for entry in messages if entry.get("error_detail")]
        return str(errors[-1][0]["exc_value"]).splitlines()[0] if errors else ""

    def get(self, path: str, method: str = "GET") -> Any:
        """Return what the API answers at ``path``; None if nobody answers or the answer is an error."""
        if self._token is None:
            try:
                password = json.loads(self._passwords.read_text())["admin"]
            except (OSError, ValueError, KeyError):
                return None
            answer = get_json(f"{self._url}/auth/token", body={"username": "admin", "password": password})
            self._token = (answer or {}).get("access_token")
        return get_json(f"{self._url}/api/v2/{path}", token=self._token, method=method) if self._token else None
