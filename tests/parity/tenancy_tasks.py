"""Tasks and handlers that tell whose they are."""

from __future__ import annotations

import asyncio
from typing import Any

from celery import current_app, shared_task

from jobbridge import JobContext, current_tenant, job


@shared_task(name="parity.whose")
def whose() -> str | None:
    return current_tenant()


@shared_task(name="parity.whose_and_next")
def whose_and_next() -> list[str | None]:
    """Tell whose this is, and the id of a job that it sends."""
    return [current_tenant(), current_app.send_task("parity.whose").id]


@job("parity.whose_async", tenant_required=True)
async def whose_async(ctx: JobContext, data: dict[str, Any]) -> list[str | None]:
    """Tell whose this is: here, in a thread of its own, and what the database's session would say."""
    elsewhere = await asyncio.to_thread(current_tenant)
    sent = await asyncio.to_thread(current_app.send_task, "parity.whose")
    with ctx.transaction() as connection:
        row = connection.execute("SELECT current_setting('app.current_tenant')").fetchone()
    return [current_tenant(), elsewhere, row and row[0], sent.id]
