"""Singleton keys: one job of a tenant at a time, on both engines, however many ask at once."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest
from celery import group

from jobbridge import DuplicateJob, Outcome
from jobbridge.core.keys import SYSTEM_TENANT
from jobbridge.errors import UnsupportedOption
from jobbridge.store.jobs import singletons
from tests.forked import Forked
from tests.parity.conftest import World
from tests.support import clean_environment, wait_until

TIMEOUT = 30
KEY = "nightly"


def send(world: World, key: str = KEY, **options: Any) -> Any:
    return world.app.enqueue("parity.echo", {"value": 1}, singleton_key=key, **options)


def waiting(world: World) -> list[dict[str, Any]]:
    return world.rows("status NOT IN ('completed', 'failed', 'cancelled', 'expired', 'skipped')")


def test_of_50_threads_that_ask_at_once_one_makes_the_job(own_world: World) -> None:
    with ThreadPoolExecutor(50) as pool:
        handles = list(pool.map(lambda _: send(own_world), range(50)))

    assert Counter(handle.outcome for handle in handles) == {Outcome.CREATED: 1, Outcome.DEDUPLICATED: 49}
    assert len({(handle.job_id, handle.external_id, handle.result.id) for handle in handles}) == 1
    (row,) = own_world.rows()
    assert (row["singleton_key"], row["job_id"]) == (KEY, handles[0].job_id)


def test_of_50_threads_that_replace_at_once_one_job_is_left(own_world: World) -> None:
    with ThreadPoolExecutor(50) as pool:
        outcomes = list(pool.map(lambda _: send(own_world, singleton_policy="replace").outcome, range(50)))

    assert Counter(outcomes) == {Outcome.CREATED: 1, Outcome.REPLACED: 49}
    assert Counter(row["status"] for row in own_world.rows()) == {
        "cancelled": 49,
        waiting(own_world)[0]["status"]: 1,
    }


PROGRAM = """
import sys
from tests.parity.tasks import make_app
app = make_app()
app.finalize()
app.jobs.count_by_status()
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    print(app.enqueue("parity.echo", {"value": 1}, singleton_key=f"key-{number}").outcome, flush=True)
"""


def test_of_processes_that_ask_at_once_one_makes_each_job(own_world: World, tmp_path: Path) -> None:
    told = [tmp_path / str(number) for number in range(3)]
    reading, writing = os.pipe()
    with os.fdopen(writing, "w"):  # they begin when it closes
        with os.fdopen(reading) as stdin:
            processes = [_start(path, stdin, own_world) for path in told]
        wait_until(lambda: all(path.read_text() == "ready\n" for path in told), timeout=TIMEOUT)
    assert [process.wait(TIMEOUT) for process in processes] == [0, 0, 0]

    outcomes = Counter(line for path in told for line in path.read_text().split()[1:])
    assert outcomes == {"created": 10, "deduplicated": 20}
    assert len(own_world.rows()) == 10


def _start(output: Path, stdin: IO[str], world: World) -> Forked:
    environment = clean_environment({**world.environment, "JOB_RUNNER_TYPE": world.engine.value})
    with output.open("w") as file, output.with_suffix(".log").open("w") as log:
        return Forked(["-c", PROGRAM], env=environment, output=file, errors=log, stdin=stdin)


def test_the_key_is_free_again_when_its_job_has_ended(world: World) -> None:
    first = send(world, "ends")
    assert first.result.get(timeout=TIMEOUT) == 1

    second = send(world, "ends")

    assert second.outcome is Outcome.CREATED
    assert second.job_id != first.job_id
    assert second.result.get(timeout=TIMEOUT) == 1


def test_a_job_keeps_its_key_while_it_runs_and_is_not_replaced_then(world: World) -> None:
    task = world.task("hold")
    first = task.apply_async(singleton_key="running")
    world.wait_for_status(first.id, "processing")

    again = task.apply_async(singleton_key="running")
    replacing = task.apply_async(singleton_key="running", singleton_policy="replace")

    assert [again.id, replacing.id] == [first.id, first.id]
    assert [again.job.outcome, replacing.job.outcome] == [Outcome.DEDUPLICATED] * 2
    world.release(first)
    assert again.get(timeout=TIMEOUT) == 1


def test_a_job_keeps_its_key_while_it_waits_for_a_retry(world: World) -> None:
    result = world.task("retry_slowly").apply_async(singleton_key="retries")
    world.wait_for_status(result.id, "retrying")

    with pytest.raises(DuplicateJob, match=f"'retries' is held by job {result.id}, which is retrying"):
        world.task("add").apply_async([1, 2], singleton_key="retries", singleton_policy="raise")
    world.app.cancel_job(result.id)


def test_a_waiting_job_is_replaced_and_never_runs(world: World) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    first = world.task("add").apply_async([1, 1], singleton_key="debounce", eta=later)

    second = world.task("add").apply_async([2, 2], singleton_key="debounce", singleton_policy="replace")

    assert second.job.outcome is Outcome.REPLACED
    assert second.get(timeout=TIMEOUT) == 4
    replaced = world.row(first.id)
    assert (replaced["status"], replaced["cancelled_by"]) == ("cancelled", "singleton")
    assert str(second.id) in replaced["cancel_reason"]
    assert first.state == "REVOKED"


def test_each_tenant_has_its_own_keys(own_world: World) -> None:
    outcomes = [send(own_world, tenant=tenant).outcome for tenant in ("acme", "zeta", "acme", None)]

    assert outcomes == [Outcome.CREATED, Outcome.CREATED, Outcome.DEDUPLICATED, Outcome.CREATED]


def test_a_key_that_was_taken_in_a_transaction_is_free_after_its_rollback(own_world: World) -> None:
    with psycopg.connect(own_world.database_url) as connection:
        with own_world.app.enqueue_on(connection):
            assert send(own_world).outcome is Outcome.CREATED
            assert send(own_world).outcome is Outcome.DEDUPLICATED
        connection.rollback()

    assert send(own_world).outcome is Outcome.CREATED
    assert len(own_world.rows()) == 1


def test_who_asks_for_a_key_waits_for_the_transaction_that_takes_it(own_world: World) -> None:
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with (
        ThreadPoolExecutor(1) as pool,
        psycopg.connect(own_world.database_url) as connection,
        psycopg.connect(own_world.database_url, autocommit=True) as outside,
    ):
        with own_world.app.enqueue_on(connection):
            first = send(own_world)
        other = pool.submit(send, own_world)
        wait_until(lambda: outside.execute(waiting).fetchall(), message="the other caller waits")
        connection.commit()

        assert other.result(timeout=TIMEOUT).job_id == first.job_id


def test_a_raise_leaves_the_callers_transaction_usable(own_world: World) -> None:
    first = send(own_world)
    with psycopg.connect(own_world.database_url) as connection, own_world.app.enqueue_on(connection):
        with pytest.raises(DuplicateJob) as caught:
            send(own_world, singleton_policy="raise")
        own_world.task("echo").delay(2)

    assert "'skip'" in caught.value.hint
    assert len(own_world.rows()) == 2
    assert own_world.rows("job_id = %s", first.job_id)


def test_a_job_that_is_sent_again_by_its_id_keeps_its_key(own_world: World) -> None:
    first = send(own_world)

    again = own_world.task("echo").apply_async([1], task_id=str(first.job_id), singleton_key=KEY)

    assert (again.id, again.job.outcome) == (str(first.job_id), Outcome.DEDUPLICATED)
    assert send(own_world).outcome is Outcome.DEDUPLICATED


def test_keys_of_ended_jobs_are_pruned_and_others_kept(own_world: World) -> None:
    ended, open_job = send(own_world, "ended"), send(own_world, "open")
    own_world.app.cancel_job(ended.job_id)

    assert singletons.prune(own_world.app.database) == 0, "too young"
    assert singletons.prune(own_world.app.database, older_than=timedelta()) == 1

    assert send(own_world, "open").job_id == open_job.job_id
    assert send(own_world, "ended").outcome is Outcome.CREATED


def test_a_job_without_a_key_touches_no_table_of_keys(own_world: World) -> None:
    own_world.task("echo").delay(1)

    with psycopg.connect(own_world.database_url) as connection:
        assert connection.execute("SELECT count(*) FROM job_singletons").fetchone() == (0,)
    assert own_world.rows()[0]["singleton_key"] is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"singleton_key": ""}, "singleton_key is ''"),
        ({"singleton_key": "x" * 256}, "singleton_key is 'xxx"),
        ({"singleton_key": "k", "singleton_policy": "queue"}, "singleton_policy is 'queue'"),
        ({"singleton_policy": "skip"}, "there is no singleton_key"),
    ],
)
def test_what_is_no_key_or_no_policy_is_refused(world: World, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UnsupportedOption, match=told):
        world.task("echo").apply_async([1], **options)


def test_a_member_of_a_group_cannot_have_a_key(own_world: World) -> None:
    add = own_world.task("add")

    with pytest.raises(UnsupportedOption, match="a group waits for each of its members"):
        group(add.s(1, 1), add.s(2, 2).set(singleton_key=KEY)).delay()


def test_the_system_tenant_has_keys_too(own_world: World) -> None:
    send(own_world)

    with psycopg.connect(own_world.database_url) as connection:
        (found,) = connection.execute("SELECT tenant, key FROM job_singletons").fetchall()
    assert found == (SYSTEM_TENANT, KEY)


# -- a job that is cancelled while it runs


def _refused_for(world: World, first: Any, key: str) -> None:
    """Check that the key is held, whatever the policy."""
    task = world.task("hold")
    for policy in ("skip", "replace"):
        again = task.apply_async(singleton_key=key, singleton_policy=policy)
        assert (again.job.outcome, again.id) == (Outcome.DEDUPLICATED, first.id)
    with pytest.raises(DuplicateJob, match=f"held by job {first.id}, which is cancelled, and still stops"):
        task.apply_async(singleton_key=key, singleton_policy="raise")


def _sent_when_free(world: World, key: str) -> Any:
    def created() -> Any:
        result = world.task("hold").apply_async(singleton_key=key)
        assert result.job.outcome is Outcome.CREATED
        return result

    result = wait_until(created, timeout=TIMEOUT, message="the key is free")
    wait_until(lambda: world.lines(result, "hold.pids"), timeout=TIMEOUT)
    return result


def test_a_cancelled_job_keeps_its_key_until_its_work_has_stopped(own_world: World) -> None:
    worker = own_world.worker("-P", "threads")
    first = own_world.task("hold").apply_async(singleton_key=KEY)
    wait_until(lambda: own_world.lines(first, "hold.pids"), timeout=TIMEOUT)
    assert own_world.app.cancel_job(first.id)  # nothing stops a thread
    assert own_world.row(first.id)["status"] == "cancelled"
    _refused_for(own_world, first, KEY)
    assert singletons.prune(own_world.app.database, older_than=timedelta()) == 0

    own_world.release(first)
    second = _sent_when_free(own_world, KEY)

    assert len(own_world.lines(first, "hold.done")) == 1
    assert own_world.app.cancel_job(second.id)
    _refused_for(own_world, second, KEY)
    worker.kill()
    own_world.worker("-P", "threads")
    third = _sent_when_free(own_world, KEY)
    own_world.release(third)
    assert third.get(timeout=TIMEOUT) == 1
    assert (
        own_world.rows("worker_number IS NOT NULL AND status = 'cancelled' AND job_id = %s", first.id) == []
    )


def test_the_key_is_free_when_the_process_of_a_cancelled_job_has_ended(world: World) -> None:
    first = world.task("hold").apply_async(singleton_key="stopped")
    (pid,) = wait_until(lambda: world.lines(first, "hold.pids"), timeout=TIMEOUT)

    assert world.app.cancel_job(first.id)
    second = _sent_when_free(world, "stopped")

    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
    world.release(second)
    assert second.get(timeout=TIMEOUT) == 1
