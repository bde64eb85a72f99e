"""What people see: the report of a day, MLflow's runs and Airflow's graph, in Chromium."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.integration.browser import DESK, HELP, PHONE, chromium, ink, launched, opened, picture
from tests.integration.conftest import DAYS, Refreshed
from tests.integration.services import Services

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(chromium() is None and "CI" not in os.environ, reason=HELP),
]
PATIENCE = 60_000  # milliseconds: two cores show Airflow's page after many seconds


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as found:
        yield found


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [PHONE, DESK])
def test_report_reads_well_on_any_screen(
    browser: Browser, refreshed: Refreshed, tmp_path: Path, size: tuple[int, int], dark: bool
) -> None:
    page_file = refreshed.slice.warehouse / "reports" / f"{DAYS[1]}.html"
    with opened(browser, size, dark) as page:
        asked: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: errors.append(message.text))
        page.goto(page_file.as_uri())
        assert asked == [page_file.as_uri()] and not errors, "it needs nothing from outside"
        expect(page.get_by_role("heading", level=1)).to_have_text(f"HyMiRec, {DAYS[1]}")
        expect(page.get_by_label("Verdict")).to_contain_text(refreshed.releases[DAYS[1]])
        for heading in ("What changed", "The gate", "How good, beside simple rankings", "Where the time went"):
            expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible()
        assert page.get_by_role("table").count() >= 8
        assert page.locator("table:not(:has(> caption))").count() == 0
        wide = page.evaluate("document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth")
        assert wide <= 0, "the page itself never scrolls sideways, only its tables"
        pixels = picture(page, tmp_path / "report.png")
    paper = pixels[2, 2].mean()
    assert paper < 40 if dark else paper > 230
    assert 0.02 < ink(pixels) < 0.5


def test_a_person_of_the_report_opens_and_closes(browser: Browser, refreshed: Refreshed) -> None:
    with opened(browser) as page:
        page.goto((refreshed.slice.warehouse / "reports" / f"{DAYS[1]}.html").as_uri())
        second = page.locator("details").nth(1)
        assert not second.get_by_role("table").first.is_visible()
        second.locator("summary").press("Enter")
        expect(second.get_by_role("table", name="What would be retrieved")).to_be_visible()


def test_mlflow_lists_a_run_a_day(browser: Browser, refreshed: Refreshed, services: Services, tmp_path: Path) -> None:
    with opened(browser) as page:
        page.goto(f"{services.mlflow_url}/#/experiments/1/runs")
        for ds in DAYS:
            expect(page.get_by_text(f"refresh {ds}").first).to_be_visible(timeout=PATIENCE)
        assert 0.01 < ink(picture(page, tmp_path / "mlflow.png")) < 0.5


def test_airflow_draws_every_task(browser: Browser, refreshed: Refreshed, services: Services, tmp_path: Path) -> None:
    passwords = services.state / "airflow" / "simple_auth_manager_passwords.json.generated"
    with opened(browser) as page:
        page.goto(f"http://127.0.0.1:{services.airflow_port}/")
        page.get_by_label("Username").fill("admin")
        page.get_by_label("Password").fill(json.loads(passwords.read_text())["admin"])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url("**/", timeout=PATIENCE)
        page.goto(f"http://127.0.0.1:{services.airflow_port}/dags/hymirec_refresh")
        page.get_by_label("Show Graph").click(timeout=PATIENCE)
        for task in ("resolve", "check_inputs", "train_recommender", "build_index", "publish"):
            expect(page.get_by_text(task, exact=True).first).to_be_visible(timeout=PATIENCE)
        assert 0.01 < ink(picture(page, tmp_path / "airflow.png")) < 0.5
