"""Django's own tasks on both engines: `jobbridge.django.tasks.JobBridgeBackend`; of Django 6, and of the package."""

from __future__ import annotations

import pytest

from jobbridge.core.keys import Engine
from tests.integration.django.project import Project

_SETTINGS = """
TASKS = {"default": {"BACKEND": "jobbridge.django.tasks.JobBridgeBackend", "QUEUES": []}}
"""

_TASKS = """

from django.tasks import task


@task(takes_context=True, priority=50)
def mail(context, to, *, kind="plain"):
    return {"to": to, "kind": kind, "id": context.task_result.id, "attempt": context.attempt}


@task
async def double(number):
    return 2 * number


@task
def fail():
    raise KeyError("no such order")
"""

_SENDS = """
import asyncio
import time
from datetime import timedelta

from django.db import transaction
from django.utils import timezone
from django.tasks import TaskResultStatus, default_task_backend
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist
from django.tasks.signals import task_enqueued

from shop.tasks import add, double, fail, mail

told = []
task_enqueued.connect(lambda sender, task_result, **_: told.append(task_result.id), weak=False)


def ended(result):
    until = time.monotonic() + 60
    while not result.is_finished:
        assert time.monotonic() < until, result
        time.sleep(0.05)
        result.refresh()
    return result


first = mail.enqueue("ada", kind="html")
assert first.status == TaskResultStatus.READY and first.enqueued_at and not first.is_finished and told == [first.id]
assert (first.args, first.kwargs, first.backend, first.task.priority) == (["ada"], {"kind": "html"}, "default", 50)
ended(first)
assert first.return_value == {"to": "ada", "kind": "html", "id": first.id, "attempt": 1}, first
assert first.attempts == 1 and first.started_at and first.finished_at >= first.started_at and first.errors == []
again = mail.get_result(first.id)
assert again.status == TaskResultStatus.SUCCESSFUL
assert (again.return_value, again.kwargs) == (first.return_value, first.kwargs)


async def asynchronously():
    result = await double.aenqueue(21)
    until = time.monotonic() + 60
    while not result.is_finished:
        assert time.monotonic() < until, result
        await asyncio.sleep(0.05)
        await result.arefresh()
    return result.return_value


assert asyncio.run(asynchronously()) == 42

failed = ended(fail.enqueue())
assert failed.status == TaskResultStatus.FAILED
[error] = failed.errors
assert error.exception_class is KeyError and "no such order" in error.traceback, error
try:
    failed.return_value
except ValueError:
    pass
else:
    raise AssertionError

later = double.using(run_after=timezone.now() + timedelta(days=1), queue_name="slow", priority=-100).enqueue(1)
from jobbridge.django.models import Job

row = Job.objects.get(job_id=later.id)
assert (row.status, row.queue, row.priority, row.type) == ("scheduled", "slow", 0, "shop.tasks.double"), row.__dict__
assert later.task.run_after is not None
assert double.get_result(later.id).task.queue_name == "slow"
assert Job.objects.get(job_id=first.id).priority == 6

try:
    with transaction.atomic():
        lost = double.enqueue(1)
        raise LookupError
except LookupError:
    pass
for nothing in (lost.id, "no-uuid", add.delay(1, 1).id):
    try:
        default_task_backend.get_result(nothing)
    except TaskResultDoesNotExist:
        continue
    raise AssertionError(nothing)
try:
    double.using(priority=101)
except InvalidTask:
    pass
else:
    raise AssertionError
try:
    double.enqueue({1, 2})
except TypeError:
    pass
else:
    raise AssertionError
print("all is well")
"""


@pytest.mark.parametrize("engine", [Engine.CELERY, Engine.TEMPORAL], ids=str)
def test_djangos_tasks(
    project: Project, engine: Engine, task_queue: str, request: pytest.FixtureRequest
) -> None:
    project.environment = {"JOB_RUNNER_TYPE": engine.value, "TEMPORAL_JOB_TASK_QUEUE": task_queue}
    if engine is Engine.TEMPORAL:
        project.environment["TEMPORAL_ADDRESS"] = request.getfixturevalue("temporal_server")
    project.add("mysite/settings.py", _SETTINGS)
    if not project.is_django_6:
        project.add("mysite/settings.py", 'INSTALLED_APPS += ["django_tasks"]\n')
    project.add("shop/tasks.py", project.with_its_tasks(_TASKS))
    project.manage("migrate", "-v", "0")
    with project.worker(engine):
        assert "all is well" in project.shell(project.with_its_tasks(_SENDS))
