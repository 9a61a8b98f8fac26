"""Whose work this is: restored for each attempt, inherited by what it sends; and what can be done to a tenant."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobbridge.core.keys import SYSTEM_TENANT, TenantId
from jobbridge.core.tenant_names import tenant_named
from jobbridge.errors import JobNotFound
from jobbridge.store.tenants.tenants import TenantStore, refuse_system

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

_current: ContextVar[TenantId | None] = ContextVar("jobbridge_tenant", default=None)


def current_tenant() -> TenantId | None:
    """Give the tenant whose work this is: that of the running job, or of `tenant_context`; None outside of both.

    Async handlers and `asyncio.to_thread` have it too. A job of nobody has the system's tenant.
    """
    return _current.get()


@contextmanager
def tenant_context(tenant: str) -> Iterator[None]:
    """Send what is sent inside for this tenant, unless it names another one.

    Raises:
        UnsupportedOption: It cannot be a tenant.
    """
    token = _current.set(tenant_named(tenant))
    try:
        yield
    finally:
        _current.reset(token)


def enter(tenant: TenantId) -> None:
    """An attempt for this tenant begins here."""
    _current.set(tenant)


def leave() -> None:
    """The attempt has ended."""
    _current.set(None)


def inherited_tenant() -> TenantId | None:
    """Give the current tenant, if it is anybody's."""
    tenant = _current.get()
    return None if tenant == SYSTEM_TENANT else tenant


@dataclass(frozen=True, kw_only=True, slots=True)
class Purged:
    """What was done away with.

    Attributes:
        deleted: Table → number of rows.
    """

    schedules: int
    cancelled: int
    deleted: dict[str, int]


def purge_tenant(app: Celery, tenant: str, *, by: str | None = None) -> Purged:
    """Delete everything of a tenant: its schedules first, then its jobs are cancelled, then all rows go in small bites.

    It is suspended before, and stays so: a message that comes back from a dead worker does not start.

    Args:
        app: Whose tables.
        tenant: Any but the system's.
        by: Who wants it.

    Raises:
        UnsupportedOption: It is the system's.
    """
    whose = TenantId(tenant)
    refuse_system(whose, "purged")
    store = TenantStore(app.database)
    store.suspend(whose, reason="purged", suspended_by=by)
    schedules = _delete_schedules(app, whose)
    cancelled = _cancel_jobs(app, store, whose, by)
    deleted = store.delete_rows(whose)
    logger.info("tenant.purged", extra={"tenant": whose, "schedules": schedules, "cancelled": cancelled})
    return Purged(schedules=schedules, cancelled=cancelled, deleted=deleted)


def _delete_schedules(app: Celery, tenant: TenantId) -> int:
    deleted = 0
    while rows := app.schedules.store.list(tenant=tenant):
        for row in rows:
            deleted += app.schedules.store.delete(tenant, row.schedule_id)
    return deleted


def _cancel_jobs(app: Celery, store: TenantStore, tenant: TenantId, by: str | None) -> int:
    cancelled = 0
    for key in store.open_jobs(tenant):
        try:
            cancelled += app.cancel_job(key.job_id, tenant, reason="The tenant was purged.", cancelled_by=by)
        except JobNotFound:
            continue  # it was pruned meanwhile
    return cancelled
