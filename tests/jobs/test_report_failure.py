from __future__ import annotations

import pytest

from jobs.platform import releases, tracking
from jobs.platform.errors import TrackingError
from jobs.platform.warehouse import Warehouse
from jobs.report_failure import main
from tests import tiny_release
from tests.integration.services import free_port

DAY = "2018-02-01"


def page(warehouse: Warehouse) -> str:
    raw = warehouse.storage.read(f"reports/{DAY}.html")
    return "" if raw is None else raw.decode()


def tell(warehouse: Warehouse, error: str, refresh_id: str = "a refresh", advice: str = "") -> None:
    main(warehouse.uri, DAY, refresh_id, "evaluate", error, advice)


def test_the_page_says_what_failed_what_to_do_and_what_went_well(warehouse: Warehouse) -> None:
    with tracking.stage("check_inputs", ds=DAY, refresh_id="a refresh"):
        pass
    tell(warehouse, "evaluate: error: <b>no</b> users\nlog: http://a/log", advice="import more days")
    html = page(warehouse)
    assert "The task evaluate failed." in html and "Nothing was published; CURRENT stays empty" in html
    assert "&lt;b&gt;no&lt;/b&gt; users\nlog: http://a/log" in html and "<b>no" not in html
    assert "Import more days." in html
    assert '<th scope="row">check_inputs</th>' in html
    client = tracking.client_()
    (run,) = client.search_runs(
        [tracking.find_experiment(client)],
        f"tags.`{tracking.REFRESH_TAG}` = 'a refresh' and tags.`hymirec.kind` = 'refresh'",
    )
    assert "report.html" in [file.path for file in client.list_artifacts(run.info.run_id)]


def test_a_first_task_that_failed_has_a_page_too(warehouse: Warehouse) -> None:
    tell(warehouse, "check_inputs: error: missing partition", refresh_id="another refresh")
    assert "missing partition" in page(warehouse) and "What to do" not in page(warehouse)


def test_the_page_does_not_deny_a_release_of_the_day(warehouse: Warehouse) -> None:
    release = tiny_release.make(warehouse, DAY)
    releases.switch(release)
    tell(warehouse, "publish: error: disk full", refresh_id="another refresh")
    assert f"CURRENT is {release.id}, a release of this very day" in page(warehouse)


def test_a_refusal_by_publish_keeps_its_own_page(warehouse: Warehouse, capsys: pytest.CaptureFixture[str]) -> None:
    tell(warehouse, "publish: error: gate: users 36; nothing published")
    assert page(warehouse) == ""
    assert "told already" in capsys.readouterr().out


def test_without_mlflow_the_page_is_written_all_the_same(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(TrackingError, match="MLflow at"):
        tell(warehouse, "evaluate: error: MLflow at nowhere")
    assert "MLflow at nowhere" in page(warehouse)
