"""What a dashboard is for, beside jobs that went well: failures with a reason, what waits, and what recurs.

`jobbridge demo --serve` sends these after its own jobs, so that each page has something to show.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from jobbridge.core.keys import Engine
from jobbridge.handlers.dataset import (
    CLIENT_WITH_UNAPPROVED_TIME,
    CLIENT_WITHOUT_ADDRESS,
    CLIENT_WITHOUT_RATE,
    MONTH,
    TODAY,
)

if TYPE_CHECKING:
    from jobbridge import Celery

#: No worker serves it: its job waits, and the dashboard says why.
UNSERVED_QUEUE = "reports"


def send_more(app: Celery, engine: Engine, tenant: str) -> None:
    """Send jobs that fail, jobs that wait, and make schedules, for a tenant that has the data set."""
    window = {"periodStart": MONTH.start.isoformat(), "periodEnd": MONTH.end.isoformat()}
    today = {"tenantId": tenant, "asOf": TODAY.isoformat()}
    for client in (CLIENT_WITHOUT_ADDRESS, CLIENT_WITH_UNAPPROVED_TIME, CLIENT_WITHOUT_RATE):
        data = {"tenantId": tenant, "clientId": client, **window}
        app.enqueue("generate-invoice", data, tenant=tenant, engine=engine)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    app.enqueue("expired-credits", today, tenant=tenant, engine=engine, run_at=tomorrow)
    app.enqueue("reconcile-bucket-usage", today, tenant=tenant, engine=engine, queue=UNSERVED_QUEUE)
    _make_schedules(app, engine, tenant)


def _make_schedules(app: Celery, engine: Engine, tenant: str) -> None:
    data = {"tenantId": tenant}
    for task, when in (
        ("expired-credits", "0 1 * * *"),
        ("credit-reconciliation", "30 2 * * 1-5"),
        ("cleanup-ai-session-keys", "10 minutes"),
    ):
        app.schedules.create(
            task,
            when,
            data,
            name=f"{task} ({engine.value})",
            tenant=tenant,
            zone="Europe/Dublin",
            engine=engine,
        )
    name = f"expiring-credits-notification ({engine.value})"
    app.schedules.create(
        "expiring-credits-notification", "0 9 * * 1", data, name=name, tenant=tenant, engine=engine
    )
    app.schedules.pause(name, tenant, note="the new texts are being checked")
