"""Fan-outs that nobody would bring to an end: whose numbers are wrong, or that cannot be helped now."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from jobbridge import Celery
from jobbridge.app.execute.tenancy import purge_tenant
from jobbridge.app.fanout.children import make
from jobbridge.app.fanout.parent_task import fan_out
from jobbridge.core.events import AwaitsChildren, Completed, Started
from jobbridge.core.fanout import Child, FanOut
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey
from jobbridge.core.status import JobStatus
from jobbridge.settings import load_settings
from jobbridge.store.fanout import parent as parent_rows
from tests.parity.tasks import make_app

RESUMPTION = '{{"task": "jobbridge.fan_out", "args": [{{}}], "kwargs": {{}}, "options": {{"task_id": "{}"}}}}'


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}))
    app.finalize()
    yield app
    app.close()


def test_a_fan_out_goes_on_when_members_that_waited_are_purged_with_their_tenant(app: Celery) -> None:
    parent = _parent(app, ["acme", "other"])

    purge_tenant(app, "other")
    _complete(app, app.fan_outs.members(parent)[0].key)
    _make_old(app)
    app.fan_outs.sweep()

    assert _status(app, parent) is JobStatus.QUEUED, "it is sent to tell what came of its children"


def test_a_cancelled_fan_out_ends_although_the_job_of_a_child_is_deleted(app: Celery) -> None:
    parent = _parent(app, ["acme", "other"])
    _run(app, "DELETE FROM jobs WHERE tenant = 'acme'")

    app.cancel_job(parent.job_id)

    _make_old(app)
    assert app.fan_outs.sweep() == 0


def test_a_fan_out_that_cannot_be_helped_goes_behind_the_others(app: Celery) -> None:
    for _ in range(2):
        _parent(app, ["acme"])
    _run(app, "UPDATE job_families SET unfinished = 0, resumption = 'unreadable'")
    _make_old(app)

    assert app.fan_outs.sweep() == 2
    assert app.fan_outs.sweep() == 0, "not before some time has passed"


def test_a_parent_that_is_run_again_runs_a_cancelled_child_as_a_new_job_and_a_completed_one_not(
    app: Celery,
) -> None:
    parent = _parent(app, ["acme"])
    [stopped] = app.fan_outs.members(parent)
    app.cancel_job(stopped.key.job_id, "acme")

    _make_anew(app, parent)

    [again] = app.fan_outs.members(parent)
    assert (again.status, again.key == stopped.key) == ("waiting", False)
    _run(app, "UPDATE job_family_members SET status = 'completed'")
    _make_anew(app, parent)
    [done] = app.fan_outs.members(parent)
    assert (done.status, done.key) == ("completed", again.key)


def _make_anew(app: Celery, parent: JobKey) -> None:
    items = [Child(data={"args": [1, 2]}, tenant="acme", key="acme")]
    wanted = FanOut(task="parity.add", items=items, concurrency=1)
    root = str(parent.job_id)
    with app.database.transaction() as connection:
        make(app, connection, parent, wanted, root_id=root, parent_id=root, default_engine=Engine.CELERY)


def _parent(app: Celery, tenants: list[str]) -> JobKey:
    """Send a parent of children of these tenants, one at a time, and give its attempt up for them."""
    items = [Child(data={"args": [1, 2]}, tenant=tenant, key=tenant) for tenant in tenants]
    handle = fan_out(app, FanOut(task="parity.add", items=items, concurrency=1))
    key = JobKey(tenant=SYSTEM_TENANT, job_id=handle.job_id)
    _start(app, key)
    with app.database.transaction() as connection, app.enqueue_on(connection):
        message = RESUMPTION.format(key.job_id)
        parent_rows.await_children(connection, key, attempt=1, resumption=message, step_id=uuid4())
        assert app.recorder.record(AwaitsChildren(key=key, attempt=1), connection).applied
    app.fan_outs.attend(key)
    return key


def _complete(app: Celery, child: JobKey) -> None:
    _start(app, child)
    assert app.recorder.record(Completed(key=child, attempt=1)).applied


def _start(app: Celery, key: JobKey) -> None:
    row = app.jobs.get(key)
    assert row is not None
    started = Started(
        key=key,
        task_id=row.task_id,
        type=row.type,
        engine=Engine.CELERY,
        delivery=row.delivery,
        queue="celery",
        worker="w@here",
    )
    assert app.recorder.record(started).applied


def _status(app: Celery, key: JobKey) -> JobStatus:
    row = app.jobs.get(key)
    assert row is not None
    return row.status


def _make_old(app: Celery) -> None:
    _run(app, "UPDATE job_families SET updated_at = now() - interval '10 seconds'")


def _run(app: Celery, statement: Any) -> None:
    with app.database.connection() as own:
        own.execute(statement)
