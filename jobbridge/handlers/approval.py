"""`invoice-approval`: the demo's durable job, which waits for a person. `examples/approval` is the same as a project.

It is no handler of the pack: `jobbridge.handlers.demo_app`, which the demo's workers serve, has it besides.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobbridge import TIMED_OUT, JobContext, job
from jobbridge.core.status import JobStatus

if TYPE_CHECKING:
    from jobbridge import Celery
    from jobbridge.core.keys import Engine

NAME = "invoice-approval"
#: The event that it waits for.
APPROVAL = "approval"
_POLL_INTERVAL = 0.05  # seconds
_DEADLINE = 60.0  # seconds


@job(NAME)
def approve_invoice(ctx: JobContext, data: dict[str, Any]) -> dict[str, Any]:
    """Ask for approval and wait for it; remind after two days, and wait on."""
    ctx.run("ask", ctx.event_link, APPROVAL, expires_in=timedelta(days=90))
    answer = ctx.wait_for(APPROVAL, timeout=timedelta(days=2))
    if answer is TIMED_OUT:
        ctx.run("remind", ctx.event_link, APPROVAL, expires_in=timedelta(days=90))
        answer = ctx.wait_for(APPROVAL)
    if answer["choice"] != "approve":
        return {"sent": False, "why": answer["comment"]}
    ctx.run("send", str, data["invoice"])
    return {"sent": True, "approvedBy": answer["by"]}


def send_approval(app: Celery, engine: Engine, tenant: str, invoice: str) -> UUID:
    """Send the job, which waits for somebody; gives its id."""
    handle = app.enqueue(
        NAME, {"invoice": invoice}, tenant=tenant, engine=engine, metadata={"title": f"Invoice {invoice}"}
    )
    return handle.job_id


def run_approval(
    app: Celery, engine: Engine, tenant: str, invoice: str, on_update: Callable[[UUID], None]
) -> UUID:
    """Send the job, approve it as soon as it waits, and wait for its end; gives its id.

    One that does not go on does not stop the caller, who looks at its row.
    """
    job_id = send_approval(app, engine, tenant, invoice)
    deadline, is_answered, before = time.monotonic() + _DEADLINE, False, None
    while time.monotonic() < deadline:
        row = app.jobs.find(job_id)
        if row is not None and row.status is not before:
            before = row.status
            on_update(job_id)
        if row is not None and row.status.is_final:
            break
        if row is not None and row.status is JobStatus.WAITING and not is_answered:
            is_answered = True
            payload = {"choice": "approve", "comment": None, "by": "the demo"}
            app.send_event(APPROVAL, payload, job_id=job_id, tenant=tenant, sent_by="the demo")
        time.sleep(_POLL_INTERVAL)
    return job_id
