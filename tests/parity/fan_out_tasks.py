"""Handlers that have children, and the children."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from celery import shared_task

from jobbridge import JobContext, RetryPolicy, job
from jobbridge.core.fanout import Child
from tests.parity.tasks import note, wait_for_file

ONCE = RetryPolicy(max_attempts=1)


@job("parity.fan_out", retry=ONCE)
def fan_out(ctx: JobContext, data: dict[str, Any]) -> Any:
    """Have as many children as asked for; each is given its number and what the test says of it."""
    note("fan_out")
    items = [{"number": number, **data.get("each", {})} for number in range(data["children"])]
    return ctx.fan_out(data.get("handler", "parity.child"), items, concurrency=data.get("concurrency", 4))


@job("parity.child", retry=RetryPolicy(max_attempts=2, first=timedelta(milliseconds=50)))
def child(ctx: JobContext, data: dict[str, Any]) -> int:
    """Fail for good (`fails`), at first (`fails_once`) or until the test mends it (`broken`), or wait (`holds`)."""
    number: int = data["number"]
    note("children", str(number))
    if number in data.get("fails", []):
        raise ValueError(f"child {number}")
    if number in data.get("fails_once", []) and ctx.attempt == 1:
        raise ConnectionError("once more")
    if number in data.get("broken", []) and note(f"broken.{number}") <= 2:
        raise ValueError(f"child {number} is broken")
    if number in data.get("holds", []):
        wait_for_file("go")
    return number


@job("parity.for_tenant", tenant_required=True)
def for_tenant(ctx: JobContext, data: dict[str, Any]) -> str:
    note("tenants", ctx.tenant_id)
    return ctx.tenant_id


@job("parity.daily", retry=ONCE)
def daily(ctx: JobContext, data: dict[str, Any]) -> Any:
    """Go over tenants: one child for each."""
    if "tenants" not in data:
        note("tenants", ctx.tenant_id)
        return ctx.tenant_id
    children = [Child(data={}, tenant=tenant, key=tenant) for tenant in data["tenants"]]
    return ctx.fan_out("parity.daily", children)


@job("parity.forgetful", retry=ONCE)
def forgetful(ctx: JobContext, data: dict[str, Any]) -> None:
    ctx.fan_out("parity.child", [{"number": 0}])


@job("parity.dynasty", retry=ONCE)
def dynasty(ctx: JobContext, data: dict[str, Any]) -> Any:
    """Have children that have children."""
    inner = {"children": 2, "each": data.get("each", {})}
    return ctx.fan_out("parity.fan_out", [inner, inner])


@shared_task(name="parity.double")
def double(number: int, **_: Any) -> int:
    return number * 2
