"""With keys, nothing of what a job carries is readable in Postgres, in a broker, or in Temporal; and all works."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from celery import chain, chord, group
from temporalio.api.workflowservice.v1 import DescribeActivityExecutionRequest

from jobbridge.app.schedules.firing import ScheduleFirer
from jobbridge.core.keys import Engine, job_id_for
from jobbridge.core.light import activity_id_in
from jobbridge.dev.postgres import PostgresServer
from jobbridge.errors import EncryptionError, EncryptionKeyMissing
from jobbridge.settings import load_settings
from jobbridge.temporal.schedules.mirror import temporal_id
from tests.parity import secret_tasks  # noqa: F401  (its tasks are the app's)
from tests.parity.conftest import World, make_world
from tests.parity.tasks import make_app
from tests.support import wait_until

TIMEOUT = 60
SECRET = "the-patient-is-called-Ekaterina"


def make_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


OLD, NEW = f"old:{make_key()}", f"new:{make_key()}"


@pytest.fixture(scope="module", params=[Engine.CELERY, Engine.TEMPORAL], ids=str)
def sealed(
    request: pytest.FixtureRequest,
    postgres: PostgresServer,
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """A world with a key, and one worker."""
    engine = Engine(request.param)
    folder = tmp_path_factory.mktemp(f"sealed-{engine}")
    url = postgres.create_database(f"sealed_{engine}", template=migrated_template)
    with ExitStack() as started:
        world = make_world(
            engine, url, folder, f"sealed-{engine}", request, started, JOBBRIDGE_ENCRYPTION_KEYS=OLD
        )
        world.worker("-P", "prefork")
        yield world


def found_in_tables(world: World, secret: str = SECRET) -> list[str]:
    """Name the tables that have the secret, as text, as bytes, or in base64."""
    tables = world.looking.rows(
        "SELECT format('%%I.%%I', schemaname, tablename) AS name FROM pg_tables "
        "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    forms = [secret, secret.encode().hex(), base64.b64encode(secret.encode()).decode()[:-4]]
    pattern = "|".join(forms)
    return [
        each["name"]
        for each in tables
        if world.looking.rows(
            f"SELECT 1 FROM {each['name']} AS held WHERE held::text ~ %s LIMIT 1", [pattern]
        )
    ]


def found_in_temporal(world: World, secret: str = SECRET, *, least: int = 0) -> list[str]:
    """Name the workflows in whose histories, memos or search attributes the server has the secret; it has `least`."""
    if world.engine is not Engine.TEMPORAL:
        return []

    own = f"TaskQueue = '{world.task_queue}'"  # the server has those of many tests

    async def look(client: Any) -> list[str]:
        found, looked_at = [], 0
        async for each in client.list_workflows(own):
            looked_at += 1
            history = await client.get_workflow_handle(each.id, run_id=each.run_id).fetch_history()
            raw = b"".join(event.SerializeToString() for event in history.events)
            if secret.encode() in raw + each.raw_info.SerializeToString():
                found.append(each.id)
        assert looked_at >= least
        return found

    return world.app.delivery(Engine.TEMPORAL).client.call(look)


def assert_nowhere(world: World) -> None:
    assert found_in_tables(world) == []
    assert found_in_temporal(world) == []


def test_arguments_and_results_are_readable_to_nobody(sealed: World) -> None:
    echo = sealed.task("secret_echo")

    sent = [
        echo.delay(SECRET),
        echo.apply_async((SECRET,), {"more": SECRET}, queue="celery", priority=3),
        echo.apply_async((SECRET,), serializer="pickle"),
        sealed.app.send_task("parity.secret_echo", kwargs={"secret": SECRET}),
        echo.delay(SECRET),  # by the template, if there were one
    ]
    waits = echo.apply_async((SECRET,), countdown=3600)
    results = [each.get(timeout=TIMEOUT) for each in sent]

    assert results == [{"echo": SECRET}, {"echo": SECRET, "more": SECRET}, *[{"echo": SECRET}] * 3]
    assert sealed.task("secret_echo_bytes").delay(SECRET).get(timeout=TIMEOUT) == SECRET.encode()
    row = sealed.row(waits.id)
    assert (row["type"], row["queue"], row["status"]) == ("parity.secret_echo", "celery", "scheduled")
    assert found_in_temporal(sealed, least=len(sent)) == []
    assert_nowhere(sealed)


def test_errors_states_and_steps_are_readable_to_nobody(sealed: World) -> None:
    raises, again = (
        sealed.task("secret_raises").delay(SECRET),
        sealed.task("secret_raises_first").delay(SECRET),
    )
    tells, keeps = (
        sealed.task("secret_tells").delay(SECRET),
        sealed.task("secret_keeps").delay({"secret": SECRET}),
    )
    wait_until(lambda: sealed.lines(tells, "told") and sealed.lines(keeps, "kept"), timeout=TIMEOUT)

    assert tells.state == "HALFWAY"
    assert tells.info == {"said": SECRET}
    wait_until(lambda: sealed.app.jobs.find(job_id_for(keeps.id)).progress_message == SECRET, timeout=TIMEOUT)
    assert_nowhere(sealed)
    sealed.release(tells)
    sealed.release(keeps)

    with pytest.raises(ValueError, match=f"no {SECRET}"):
        raises.get(timeout=TIMEOUT)
    assert again.get(timeout=TIMEOUT) == SECRET
    assert keeps.get(timeout=TIMEOUT) == {"kept": SECRET}
    assert tells.get(timeout=TIMEOUT) == "done"
    failed = sealed.wait_for_status(raises.id, "failed")
    assert failed["error"].startswith("ValueError: jb1:old:")  # its class stays readable
    opened = sealed.app.jobs.find(job_id_for(raises.id))
    assert opened.error == f"ValueError: no {SECRET}"
    assert SECRET in opened.traceback
    [step] = [
        each
        for each in sealed.app.jobs.details(sealed.app.jobs.find(job_id_for(keeps.id)).key)
        if each.step_key
    ]
    assert step.result == {"hidden": SECRET}
    assert_nowhere(sealed)


def test_what_follows_a_job_is_readable_to_nobody(sealed: World) -> None:
    echo, join = sealed.task("secret_echo"), sealed.task("secret_join")

    waits = chain(echo.si(SECRET).set(countdown=3600), join.si([], SECRET)).delay()
    first = chord([echo.s(SECRET), echo.si(SECRET).set(countdown=2)], join.s(SECRET)).delay()
    many = group(echo.s(f"{SECRET}{number}") for number in range(3)).delay()

    assert waits.parent.state == "PENDING"
    assert_nowhere(sealed)
    assert first.get(timeout=TIMEOUT) == SECRET * 3
    assert [each["echo"] for each in many.get(timeout=TIMEOUT)] == [
        f"{SECRET}{number}" for number in range(3)
    ]
    assert_nowhere(sealed)


def test_children_of_a_fan_out_are_readable_to_nobody(sealed: World) -> None:
    sent = sealed.task("secret_fans").delay({"secret": SECRET})

    assert sent.get(timeout=TIMEOUT)["completed"] == 3
    assert (
        len(sealed.looking.rows("SELECT FROM job_family_members WHERE arguments LIKE 'jb1:old:%%'", [])) == 3
    )
    assert_nowhere(sealed)


def test_a_failed_job_is_run_again_with_what_was_sealed(sealed: World) -> None:
    sent = sealed.task("secret_raises").delay(SECRET)
    sealed.wait_for_status(sent.id, "failed")

    sealed.app.retry_job(sent.id)

    wait_until(
        lambda: sealed.row(sent.id)["attempt"] == 2 and sealed.row(sent.id)["status"] == "failed",
        timeout=TIMEOUT,
    )
    assert sealed.app.jobs.find(job_id_for(sent.id)).error == f"ValueError: no {SECRET}"


def test_the_arguments_of_schedules_are_readable_to_nobody(sealed: World) -> None:
    schedules, engine = sealed.app.schedules, sealed.engine
    made = schedules.create(
        "parity.secret_echo", "2 seconds", {"secret": SECRET}, name="sealed", engine=engine
    )
    again = schedules.create(
        "parity.secret_echo", "2 seconds", {"secret": SECRET}, name="sealed", engine=engine
    )

    assert (again.outcome, schedules.find("sealed").kwargs) == ("unchanged", {"secret": SECRET})
    fired = "SELECT task_id FROM jobs WHERE metadata -> 'schedule' ->> 'name' = 'sealed'"
    if engine is Engine.CELERY:
        wait_until(lambda: ScheduleFirer(sealed.app).fire_due(), timeout=TIMEOUT)
    [sent, *_] = wait_until(lambda: sealed.looking.rows(fired), timeout=TIMEOUT)
    assert sealed.app.AsyncResult(sent["task_id"]).get(timeout=TIMEOUT) == {"echo": SECRET}
    if engine is Engine.TEMPORAL:  # which gives each workflow of a schedule the result of the one before
        ended = f"{fired} AND status = 'completed'"
        wait_until(lambda: len(sealed.looking.rows(ended)) > 1, timeout=TIMEOUT)
    by_hand = schedules.run_now("sealed")
    assert sealed.app.AsyncResult(str(by_hand)).get(timeout=TIMEOUT) == {"echo": SECRET}
    assert_nowhere(sealed)
    if engine is Engine.TEMPORAL:
        told = sealed.app.delivery(Engine.TEMPORAL).client.call(
            lambda client: client.get_schedule_handle(temporal_id(sealed.app, made.schedule_id)).describe()
        )
        assert b"jb1:old:" in (raw := told.raw_description.SerializeToString())
        assert SECRET.encode() not in raw

    changed = schedules.update("sealed", when="24 hours")  # what is not named stays
    keyless = make_app(settings=sealed.app.settings.model_copy(update={"encryption_keys": None}))
    assert changed.outcome == "updated"
    assert schedules.find("sealed").kwargs == {"secret": SECRET}
    assert keyless.schedules.find("sealed").args == ["(encrypted)"]
    with pytest.raises(EncryptionKeyMissing, match="'old'"):
        keyless.schedules.update("sealed", when="12 hours")
    if engine is Engine.CELERY:  # a beat without the key puts it off, and its fire is not lost
        due = (
            "UPDATE job_schedules SET due_at = now(), next_fire_at = now() WHERE name = 'sealed' RETURNING 1"
        )
        sealed.looking.rows(due)
        fired_before = len(schedules.history("sealed"))
        assert ScheduleFirer(keyless).fire_due() == 1
        assert len(schedules.history("sealed")) == fired_before
        assert ScheduleFirer(sealed.app).fire_due() == 0  # not yet
        sealed.looking.rows("UPDATE job_schedules SET due_at = now() WHERE name = 'sealed' RETURNING 1")
        assert ScheduleFirer(sealed.app).fire_due() == 1
        assert schedules.history("sealed")[0].outcome == "enqueued"
    keyless.close()
    schedules.delete("sealed")


def test_what_goes_without_a_workflow_is_readable_to_nobody(sealed: World) -> None:
    if sealed.engine is not Engine.TEMPORAL:
        return
    echo, raises = sealed.task("secret_echo"), sealed.task("secret_raises")
    sent = echo.apply_async((SECRET,), temporal_light=True)
    failed = raises.apply_async((SECRET,), temporal_light=True)

    assert sent.get(timeout=TIMEOUT) == {"echo": SECRET}
    with pytest.raises(ValueError, match=f"no {SECRET}"):
        failed.get(timeout=TIMEOUT)
    client = sealed.app.delivery(Engine.TEMPORAL).client
    for each in (sent, failed):
        request = DescribeActivityExecutionRequest(
            namespace=sealed.app.settings.temporal_namespace,
            activity_id=activity_id_in(sealed.row(each.id)["external_id"]),
            include_input=True,
            include_outcome=True,
        )
        told = client.call(lambda own, asked=request: own.workflow_service.describe_activity_execution(asked))
        assert b"jb1:old:" in (raw := told.SerializeToString())
        assert SECRET.encode() not in raw
    assert_nowhere(sealed)


@pytest.mark.workflow_tasks_fail  # it waits for a worker with its key
def test_keys_are_rotated_and_what_has_no_key_waits_for_it(own_world: World) -> None:
    world = own_world

    def app_with(*keys: str) -> Any:
        settings = load_settings({**world.environment, "JOBBRIDGE_ENCRYPTION_KEYS": ",".join(keys)})
        app = make_app(settings=settings)
        app.finalize()
        return app

    @contextmanager
    def worker_with(*keys: str) -> Iterator[Any]:
        environment = {**world.environment, "JOBBRIDGE_ENCRYPTION_KEYS": ",".join(keys)}
        worker = replace(world, environment=environment).worker("-P", "solo")
        yield worker
        worker.stop()

    before, after = app_with(OLD), app_with(NEW, OLD)
    plain = world.task("secret_echo").delay("from before there were keys")
    old = before.tasks["parity.secret_echo"].delay(SECRET)
    new = after.tasks["parity.secret_echo"].delay(SECRET)
    with worker_with(NEW, OLD):
        (told,) = after.control.inspect(timeout=20, limit=1).stats().values()
        assert told["encryption"] == {"writes": "new", "reads": ["new", "old"]}
        assert after.AsyncResult(old.id).get(timeout=TIMEOUT) == {"echo": SECRET}
        assert after.AsyncResult(new.id).get(timeout=TIMEOUT) == {"echo": SECRET}
        assert after.AsyncResult(plain.id).get(timeout=TIMEOUT)["echo"] == "from before there were keys"
    assert sealed_by(world, old.id) == ("old", "new")
    assert sealed_by(world, new.id) == ("new", "new")
    # Who has the old key alone is told which one is missing.
    with pytest.raises(EncryptionKeyMissing, match="'new'"):
        before.AsyncResult(new.id).get(timeout=TIMEOUT)

    lost = before.tasks["parity.secret_echo"].delay(SECRET)
    with worker_with(NEW) as worker:
        if world.engine is Engine.CELERY:
            world.wait_for_status(lost.id, "failed", timeout=TIMEOUT)
            assert "'old'" in after.jobs.find(job_id_for(lost.id)).error
        else:
            wait_until(lambda: "key 'old'" in worker.log(), timeout=TIMEOUT)
    with worker_with(NEW, OLD):
        if world.engine is Engine.CELERY:
            after.retry_job(lost.id)
        assert after.AsyncResult(lost.id).get(timeout=TIMEOUT) == {"echo": SECRET}
    for app in (before, after):
        app.close()


def test_what_is_sealed_for_one_job_does_not_open_in_another(sealed: World) -> None:
    echo = sealed.task("secret_echo")
    mine, other = echo.delay("mine"), echo.delay(SECRET)
    assert (mine.get(timeout=TIMEOUT), other.get(timeout=TIMEOUT)) == ({"echo": "mine"}, {"echo": SECRET})
    fresh = make_app(settings=sealed.app.settings)

    sealed.looking.rows(
        "UPDATE jobs SET result = (SELECT result FROM jobs WHERE job_id = %s) WHERE job_id = %s RETURNING 1",
        [job_id_for(other.id), job_id_for(mine.id)],
    )

    with pytest.raises(EncryptionError, match="belongs to another place"):
        fresh.AsyncResult(mine.id).get(timeout=TIMEOUT)
    fresh.close()


def sealed_by(world: World, task_id: str) -> tuple[str, str]:
    """Give the ids of the keys by which a job's arguments and its result are sealed."""
    row = world.row(task_id)
    arguments, result = row["metadata"]["data"]["$encrypted"], row["result"]["$encrypted"]
    return arguments.split(":")[1], result.split(":")[1]
