"""`make screenshots`: the pictures of docs/pictures, of the demo's jobs on both engines and a week before them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from jobbridge.cli.demo import TENANTS, Stage, open_stage
from jobbridge.core.keys import Engine
from jobbridge.handlers.dataset import ASSET_MAPPING
from jobbridge.handlers.files import ASSET_UPLOAD, keep_file
from jobbridge.handlers.showcase import send_more
from tests.browser.chromium import run_chromium
from tests.support import REPOSITORY, wait_until

PICTURES = REPOSITORY / "docs" / "pictures"
DESK = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}

#: A week of jobs as an office makes them: many by day, few at night, some that fail. Always the same ones.
HISTORY = """
INSERT INTO public.jobs (
    tenant, job_id, task_id, type, status, metadata, runner_type, queue, attempt, error, created_at, updated_at,
    started_at, completed_at
)
SELECT
    CASE engine WHEN 'celery' THEN %(celery)s ELSE %(temporal)s END, job_id, job_id::text, type, status, '{}', engine,
    'celery', 1, CASE status WHEN 'failed' THEN error END, made_at, made_at, made_at + wait, made_at + wait + run
FROM (
    SELECT
        gen_random_uuid() AS job_id,
        (ARRAY['generate-invoice', 'invoice_email', 'invoice_email', 'asset_import', 'credit-reconciliation'])
            [1 + floor(5 * dice.a)::int] AS type,
        CASE WHEN dice.b < 0.025 THEN 'failed' WHEN dice.b < 0.03 THEN 'cancelled' ELSE 'completed' END AS status,
        CASE WHEN dice.c < 0.4 THEN 'temporal' ELSE 'celery' END AS engine,
        (ARRAY[
            'ConnectionError: smtp.example.com:25 refused the connection',
            'NoBillingAddress: Client ''ballymore'' (Ballymore Foods) has no billing address.',
            'TimeoutError: graph.microsoft.com did not answer within 30 s'
        ])[1 + floor(3 * dice.d)::int] AS error,
        hour.at + dice.e * interval '1 hour' AS made_at,
        (0.02 - ln(1 - dice.f * 0.99) * 0.15) * interval '1 second' AS wait,
        (0.15 - ln(1 - dice.g * 0.99) * 0.9) * interval '1 second' AS run
    FROM generate_series(date_trunc('hour', now()) - interval '7 days', now(), interval '1 hour') AS hour (at)
    CROSS JOIN LATERAL (
        SELECT random() AS a, random() AS b, random() AS c, random() AS d, random() AS e, random() AS f,
            random() AS g
        FROM generate_series(
            1, 4 + (CASE WHEN extract(isodow FROM hour.at) < 6 THEN 45 ELSE 10 END
                * exp(0 - ((extract(hour FROM hour.at) - 12) / 4.0) ^ 2) * (0.7 + 0.6 * random()))::int
        )
    ) AS dice
) AS made
WHERE made_at + wait + run < now() - interval '2 minutes'
"""


def main() -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    # Postgres of root runs as another account, which must be able to enter the folder.
    with tempfile.TemporaryDirectory(prefix="jobbridge-pictures-") as name:
        Path(name).chmod(0o755)
        with open_stage(Path(name), list(Engine), print, stays=True, port=None) as stage:
            _fill(stage, Path(name))
            with run_chromium() as browser:
                _take_all(stage, browser)
    for path in sorted(PICTURES.glob("*.png")):
        print(f"{path.relative_to(REPOSITORY)}  {path.stat().st_size // 1024} kB")


def _fill(stage: Stage, folder: Path) -> None:
    with stage.app.database.transaction() as connection:
        connection.execute("SELECT setseed(0.4)")
        connection.execute(HISTORY, {engine.value: TENANTS[engine] for engine in Engine})
    for engine in Engine:
        stage.run(engine)
        send_more(stage.app, engine, TENANTS[engine])
    wait_until(
        lambda: _count(stage, "failed", "attempt > 0 AND created_at > now() - interval '1 minute'") >= 6
    )


def _count(stage: Stage, status: str, where: str = "true") -> int:
    with stage.app.database.connection() as connection:
        row = connection.execute(
            f"SELECT count(*) FROM jobs WHERE status = %s AND {where}", [status]
        ).fetchone()
    assert row is not None
    return int(row[0])


def _import_many_devices(stage: Stage, engine: Engine) -> None:
    """Send a job that takes a while, so that a picture has one that runs."""
    names = ",".join(ASSET_MAPPING.values())
    text = StringIO()
    text.write(f"{names}\n")
    for number in range(60_000):
        known = {
            "Device": f"laptop-{number}",
            "Client": "northwind",
            "Type": "workstation",
            "Serial": f"S{number}",
        }
        text.write(",".join(known.get(name, "") for name in ASSET_MAPPING.values()) + "\n")
    tenant = TENANTS[engine]
    with stage.app.database.transaction() as connection:
        devices = keep_file(
            connection, tenant, kind=ASSET_UPLOAD, name="devices.csv", media_type="text/csv",
            content=[text.getvalue().encode()],
        )  # fmt: skip
    data = {"tenantId": tenant, "fileId": str(devices.file_id), "mapping": ASSET_MAPPING}
    stage.app.enqueue("asset_import", data, tenant=tenant, engine=engine)


def _take_all(stage: Stage, browser: Browser) -> None:
    for engine in Engine:
        _import_many_devices(stage, engine)
    wait_until(lambda: _count(stage, "processing", "progress > 20") >= 1)
    url = stage.dashboard_url
    failed = _newest_failure(stage)
    for theme in ("light", "dark"):
        with _page(browser, DESK, theme) as page:
            _take(page, url, f"overview-{theme}")
            _take(page, f"{url}jobs", f"jobs-{theme}")
            _take(page, f"{url}jobs/{failed}", f"job-{theme}")
    with _page(browser, DESK, "light") as page:
        _take(page, f"{url}schedules", "schedules-light")
        _take(page, f"{url}workers", "workers-light")
    with _page(browser, PHONE, "light") as page:
        _take(page, f"{url}jobs", "jobs-phone")
    with _page(browser, PHONE, "dark") as page:
        _take(page, url, "overview-phone")


def _newest_failure(stage: Stage) -> str:
    with stage.app.database.connection() as connection:
        row = connection.execute(
            "SELECT job_id FROM jobs WHERE status = 'failed' AND error LIKE '%%billing address%%'"
            " ORDER BY created_at DESC LIMIT 1"
        ).fetchone()
    assert row is not None
    return str(row[0])


@contextmanager
def _page(browser: Browser, size: Any, theme: Any) -> Iterator[Page]:
    context = browser.new_context(
        viewport=size,
        color_scheme=theme,
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="Europe/Dublin",
    )
    try:
        yield context.new_page()
    finally:
        context.close()


def _take(page: Page, address: str, name: str) -> None:
    page.goto(address)
    page.wait_for_load_state("load")
    page.evaluate("document.documentElement.style.scrollbarGutter = 'auto'")  # there is no scroll bar to see
    page.wait_for_timeout(1500)  # milliseconds: charts are drawn, the stream is open
    page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")


if __name__ == "__main__":
    main()
