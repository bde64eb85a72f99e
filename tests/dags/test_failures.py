"""What a task that failed tells, and whom."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags import failures
from jobs.platform.errors import TrackingError
from tests.integration.services import free_port
from tests.mail import MailServer, text_of

LINKS = {"log": "http://a/log", "MLflow": "http://m"}
SMTP = "airflow.providers.smtp.notifications.smtp.SmtpNotifier"


class TestFail:
    def test_bad_input_is_not_retried(self) -> None:
        lines = ["starting", "error: table events, column x: seen 1; allowed: 2", "bye"]
        with pytest.raises(
            AirflowFailException,
            match=r"^check_inputs: error: table events, column x.*\nlog: http://a/log\nMLflow: http://m",
        ):
            failures.fail("check_inputs", 2, lines, LINKS)

    def test_a_crash_is_retried(self) -> None:
        with pytest.raises(AirflowException, match="ended with exit code 1: ValueError: boom") as caught:
            failures.fail("evaluate", 1, ["Traceback", "ValueError: boom", ""], {})
        assert not isinstance(caught.value, AirflowFailException)

    def test_an_outage_is_retried(self) -> None:
        with pytest.raises(AirflowException, match="exit code 75: error: MLflow at http://x: refused") as caught:
            failures.fail("evaluate", TrackingError.exit_code, ["error: MLflow at http://x: refused"], {})
        assert not isinstance(caught.value, AirflowFailException)

    def test_a_signal_is_named(self) -> None:
        with pytest.raises(AirflowException, match="evaluate: ended by signal 9: it printed nothing"):
            failures.fail("evaluate", -9, [], {})


class TestLinks:
    """tests/integration asks a real server for a run."""

    def test_what_is_not_known_is_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        context: Any = {"ti": SimpleNamespace(log_url="http://a/log")}
        monkeypatch.setenv("HYMIREC_MLFLOW_URL", f"http://127.0.0.1:{free_port()}")
        assert failures.links(context, "evaluate", "r") == {"log": "http://a/log"}
        monkeypatch.setenv("HYMIREC_FOREGROUND", "1")
        assert failures.links(context, "evaluate", "r") == {}


def test_the_page_of_the_day_tells_of_the_failure(tmp_path: Path) -> None:
    refresh = {"warehouse": str(tmp_path), "ds": "2018-02-01", "refresh_id": "manual__1", "retrain": None}
    context: Any = {
        "task": SimpleNamespace(task_id="champion.evaluate", resolver="resolve"),
        "ti": SimpleNamespace(xcom_pull=lambda task_ids: {"resolve": refresh}[task_ids]),
        "exception": AirflowException("evaluate: ended by signal 9: --boom\nlog: http://a/log"),
    }
    failures.write_page(context, advice="look at the log")
    page = (tmp_path / "reports" / "2018-02-01.html").read_text()
    for told in ("champion.evaluate", "ended by signal 9: --boom\nlog: http://a/log", "Look at the log.", "manual__1"):
        assert told in page


class TestNotifier:
    def context(self) -> Any:
        ti = SimpleNamespace(dag_id="hymirec_refresh", task_id="evaluate", run_id="manual__1")
        return {"ti": ti, "exception": AirflowException("evaluate: ended by signal 9: boom\nlog: http://a/log")}

    def test_by_default_a_line_is_logged(self, capsys: pytest.CaptureFixture[str]) -> None:
        failures.notifier()(self.context())
        (line,) = capsys.readouterr().out.splitlines()
        assert "[error" in line
        assert (
            "hymirec_refresh.evaluate failed in manual__1: evaluate: ended by signal 9: boom · log: http://a/log"
        ) in line

    def test_mail_by_configuration_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with MailServer() as mail:
            arguments = {
                "to": "team@example.org",
                "from_email": "airflow@example.org",
                "subject": "{{ ti.task_id }} failed",
                "html_content": "{{ exception }}",
            }
            monkeypatch.setenv("HYMIREC_NOTIFIER", SMTP)
            monkeypatch.setenv("HYMIREC_NOTIFIER_KWARGS", json.dumps(arguments))
            monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", mail.connection)
            failures.notifier()(self.context())
        (sent,) = mail.received
        assert (sent["Subject"], sent["To"]) == ("evaluate failed", "team@example.org")
        assert "evaluate: ended by signal 9: boom" in text_of(sent)

    @pytest.mark.parametrize(
        ("path", "arguments", "message"),
        [
            ("no.such.Notifier", "", "seen no.such.Notifier with .*No module named 'no'; allowed: the import path"),
            ("Notifier", "", "seen Notifier with"),
            (SMTP, "{}", "missing 1 required positional argument: 'to'"),
            (SMTP, "{'to': 1}", "seen .* with HYMIREC_NOTIFIER_KWARGS {'to': 1}: .*a JSON object"),
            ("builtins.dict", "", "seen builtins.dict; allowed: a class of notifiers"),
        ],
    )
    def test_a_slip_is_named(self, monkeypatch: pytest.MonkeyPatch, path: str, arguments: str, message: str) -> None:
        monkeypatch.setenv("HYMIREC_NOTIFIER", path)
        monkeypatch.setenv("HYMIREC_NOTIFIER_KWARGS", arguments)
        with pytest.raises(ValueError, match=message):
            failures.notifier()
