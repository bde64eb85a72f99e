"""An S3-compatible store on loopback, as a process of its own; whoever uses it is told by the usual variables alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from tests.integration.services import free_port

_START_SECONDS = 60


class ObjectStore:
    """The store; `start` returns when it answers, `stop` when it has ended.

    Parameters
    ----------
    log : Path
    lets_in : int, optional
        Requests that it answers before it asks who is calling, of whom it knows nobody; by default it never asks.
    """

    def __init__(self, log: Path, lets_in: int | None = None) -> None:
        self.port, self._log = free_port(), log
        self._settings = {} if lets_in is None else {"INITIAL_NO_AUTH_ACTION_COUNT": str(lets_in)}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to find it."""
        return {
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with self._log.open("wb") as log:
            environment = {**os.environ, **self._settings}
            self._process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.1)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)

    def create_bucket(self, name: str) -> None:
        with urlopen(Request(f"{self.url}/{name}", method="PUT")):
            pass

    def torn_uploads(self, bucket: str) -> int:
        """Uploads in parts that were begun and neither completed nor given up."""
        with urlopen(f"{self.url}/{bucket}?uploads") as answer:
            return int(answer.read().count(b"<Upload>"))

    def log(self) -> str:
        """The requests so far, one a line."""
        return self._log.read_text(errors="replace")

    def _answers(self) -> bool:
        with suppress(URLError, ConnectionError), urlopen(f"{self.url}/moto-api/"):
            return True
        return False
