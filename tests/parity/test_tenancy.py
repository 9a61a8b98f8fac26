"""Tenants: their jobs know whose they are, and do not start while the tenant is suspended, on both engines."""

from __future__ import annotations

import uuid

import pytest

from jobbridge import tenant_context
from jobbridge.core.keys import SYSTEM_TENANT, TenantId
from tests.parity import tenancy_tasks as tenancy_tasks  # declares the handlers
from tests.parity.conftest import World
from tests.support import wait_until

TIMEOUT = 30


@pytest.fixture
def tenant() -> TenantId:
    return TenantId(str(uuid.uuid4()))


def test_a_task_knows_whose_it_is_and_what_it_sends_is_the_same_tenants(
    world: World, tenant: TenantId
) -> None:
    with tenant_context(tenant):
        first = world.task("whose_and_next").delay()
    known, next_id = first.get(timeout=TIMEOUT)

    assert known == tenant
    assert world.app.AsyncResult(next_id).get(timeout=TIMEOUT) == tenant
    assert world.row(next_id)["tenant"] == tenant


def test_an_async_handler_knows_it_in_its_threads_and_in_the_database(world: World, tenant: TenantId) -> None:
    result = world.task("whose_async").apply_async([{}], tenant=tenant)
    here, in_thread, in_database, sent = result.get(timeout=TIMEOUT)

    assert {here, in_thread, in_database} == {tenant}
    assert world.app.AsyncResult(sent).get(timeout=TIMEOUT) == tenant


def test_the_tenant_of_one_job_is_not_that_of_the_next(world: World, tenant: TenantId) -> None:
    task = world.task("whose")
    results = [task.apply_async(tenant=tenant if n % 2 else None) for n in range(8)]

    assert [result.get(timeout=TIMEOUT) for result in results] == [SYSTEM_TENANT, tenant] * 4


def test_a_suspended_tenants_job_is_skipped_without_retry_or_failure(world: World, tenant: TenantId) -> None:
    world.app.tenants.suspend(tenant, reason="did not pay")
    alarm = world.app.signature("parity.whose")
    skipped = world.task("whose").apply_async(tenant=tenant, link_error=alarm)
    others = world.task("whose").delay()

    row = world.wait_for_status(skipped.id, "skipped")
    assert others.get(timeout=TIMEOUT) == SYSTEM_TENANT
    assert (row["attempt"], row["error"]) == (0, "The tenant is suspended: did not pay")
    assert world.details(skipped.id) == []
    assert len(world.rows("tenant = %s", tenant)) == 1, "nobody was called for a failure"

    world.app.tenants.resume(tenant)
    assert world.task("whose").apply_async(tenant=tenant).get(timeout=TIMEOUT) == tenant
    assert world.row(skipped.id)["status"] == "skipped"


def test_a_purged_tenants_jobs_are_gone_and_those_of_others_run(world: World, tenant: TenantId) -> None:
    later = world.task("whose").apply_async(tenant=tenant, countdown=600)
    other = world.task("whose").apply_async(countdown=1)

    wait_until(lambda: world.row(later.id)["status"] == "scheduled")
    purged = world.app.purge_tenant(tenant)

    assert purged.cancelled == 1
    assert world.rows("tenant = %s", tenant) == []
    assert other.get(timeout=TIMEOUT) == SYSTEM_TENANT
