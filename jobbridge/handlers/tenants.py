"""Going over all tenants, as jobs of the system do: each in a transaction of its own, with the tenant set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from pydantic import BaseModel

from jobbridge import Child, FanOut, JobContext
from jobbridge.core.keys import SYSTEM_TENANT
from jobbridge.handlers.sql import Connection, Transaction, one, run

# For this transaction only, as `ctx.transaction` does: what row-level security asks for.
SET_TENANT = """
SELECT set_config('app.current_tenant', %(tenant)s, true)
"""

NOW = """
SELECT clock_timestamp()
"""


@contextmanager
def transaction_of(transaction: Transaction, tenant: str) -> Iterator[Connection]:
    """Open a transaction for that tenant, whoever the job is for."""
    with transaction() as connection:
        run(connection, SET_TENANT, {"tenant": tenant})
        yield connection


def is_everybodys(tenant: str) -> bool:
    """Whether a job of that tenant goes over all tenants."""
    return tenant == SYSTEM_TENANT


def over_tenants(ctx: JobContext, data: BaseModel, find: Callable[[Connection], list[str]]) -> FanOut | None:
    """Give a child of this very job for each tenant that `find` finds; None if the job is one tenant's own."""
    if not is_everybodys(ctx.tenant_id):
        return None
    with ctx.transaction() as connection:
        tenants = find(connection)
    told = data.model_dump(mode="json", by_alias=True, exclude_none=True)
    return ctx.fan_out(ctx.name, [Child(data=told, tenant=tenant, key=tenant) for tenant in tenants])


def now_of(connection: Connection) -> datetime:
    """Give the database's clock."""
    row = one(connection, NOW, {})
    assert row is not None  # a SELECT without FROM gives its row
    now: datetime = row[0]
    return now
