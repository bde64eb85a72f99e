"""Turn the log of ``airflow dags test`` into one line a task."""

from __future__ import annotations

import re
import sys
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.status import Status

_LINE = re.compile(r"^\S+ \[(?P<level>\w+) *\] (?P<text>.*?) *\[(?P<logger>[\w.]+)\](?: \w+=.*)?$")
_EDGE = re.compile(r"\[DAG TEST\] (?P<edge>starting|end) task(?:_id=| task_id=)(?P<task>[\w.]+)")
_ERROR = re.compile(r"^(?:\w+\.)*\w+(?:Exception|Timeout|Error|Terminated): (?P<text>.*)")
_PROGRESS_BAR = re.compile(r"\d+%\|.*\|")
_NOISE = re.compile(
    r"^(WARN|Setting default log|To adjust logging|Using Spark's default|Spark-Submit cmd|Command:|\d\d/)"
)
_JOB_LOGGERS = ("JobOperator", "SparkSubmitHook")


class TaskLog:
    """Reads the log line by line and shows the running task, its progress and its result.

    Parameters
    ----------
    console : rich.console.Console, optional
    heartbeat : float, default=30
        Seconds after which a file hears again of a task that runs, also when its job is silent.

    Attributes
    ----------
    failure : str
        What to tell when the run failed.
    """

    def __init__(self, console: Console | None = None, heartbeat: float = 30) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.failure = "error: the run failed before its first task"
        self._task = ""
        self._started = time.monotonic()
        self._text = self._last = ""
        self._running = self._failed = False
        self._status: Status | None = None
        self._heartbeat, self._over = heartbeat, threading.Event()

    def __enter__(self) -> TaskLog:
        if self.console.is_terminal:
            self._status = self.console.status("starting Airflow")
            self._status.start()
        else:
            threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._status is not None:
            self._status.stop()

    def read(self, line: str) -> None:
        """Take one line of the log."""
        line = line.rstrip()
        edge = _EDGE.search(line)
        if edge is not None:
            self._begin(edge["task"]) if edge["edge"] == "starting" else self._end()
            return
        exception = _ERROR.match(line)
        if exception is not None:
            self._failed = True
            text = exception["text"].replace("error: ", "", 1)
            where = f"{self._task}: " if self._task else ""
            self.failure = f"error: {where}{text.removeprefix(where)}"
            return
        found = _LINE.match(line)
        if found is None:
            return
        if found["text"].startswith("Task failed with exception"):
            self._failed = True
            self.failure = f"error: {self._task} failed"
        if found["logger"].endswith(_JOB_LOGGERS):
            self._note(found["text"])

    def _begin(self, task: str) -> None:
        self._task, self._last, self._failed, self._running = task, "", False, True
        self._started = time.monotonic()
        self._show("")

    def _note(self, text: str) -> None:
        if not text.strip() or _NOISE.match(text):
            return
        self._show(text.strip())
        if not _PROGRESS_BAR.search(text) and not text.startswith(" "):  # details are indented
            self._last = text

    def _show(self, text: str) -> None:
        """Show what the task is doing: in place on a terminal; a file hears of it with the next heartbeat."""
        self._text = text
        if self._status is not None:
            width = max(20, self.console.width - 32)
            self._status.update(f"{self._task:<25} [dim]{escape(text[:width])}[/dim]")

    def _beat(self) -> None:
        while not self._over.wait(self._heartbeat):
            if self._running and time.monotonic() - self._started >= self._heartbeat:
                self.console.print(f"  … {self._task:<25}{self._seconds()}  {escape(self._text)}".rstrip())
                sys.stdout.flush()

    def _end(self) -> None:
        self._running = False
        mark = "[red]✗[/red]" if self._failed else "[green]✓[/green]"
        result = "" if self._failed else " ".join(self._last.removeprefix(f"{self._task}: ").split())
        self.console.print(f"  {mark} {self._task:<25}{self._seconds()}  {escape(result)}")
        sys.stdout.flush()

    def _seconds(self) -> str:
        seconds = round(time.monotonic() - self._started)
        return f"{seconds // 60:>3}:{seconds % 60:02d}"
