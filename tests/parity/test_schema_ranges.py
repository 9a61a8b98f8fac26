"""Tables that a later release has changed: a worker that they no longer serve takes nothing, on either engine."""

from __future__ import annotations

import math
from collections.abc import Iterator

import psycopg
import pytest

from jobbridge import Celery, __version__
from jobbridge.diagnosis.consumers import check_workers
from jobbridge.errors import SchemaTooNew
from jobbridge.settings import load_settings
from jobbridge.store.database import Database
from jobbridge.store.schema_range import THIS_RELEASE
from jobbridge.store.workers.queue_pauses import TELL
from tests.parity.conftest import World
from tests.parity.tasks import make_app
from tests.parity.test_queue_pauses import wait_until_paused
from tests.support import CONTRACTED, wait_until

SERVED_AGAIN = """
UPDATE public.jobbridge_version SET version_num = %(own)s, revision = %(own)s, serves_since = NULL
WHERE version_num ~ '^9'
"""


def contract(world: World, *, tells: bool) -> None:
    with psycopg.connect(world.database_url) as connection:
        connection.execute(CONTRACTED)
        if tells:
            connection.execute(TELL)


def take_back(world: World) -> None:
    with psycopg.connect(world.database_url) as connection:
        connection.execute(SERVED_AGAIN, {"own": THIS_RELEASE.newest})
        connection.execute(TELL)


@pytest.fixture
def later(own_world: World) -> Iterator[Celery]:
    """An app of the next release, as far as the tables go: they serve it, before and after."""
    app = make_app(settings=load_settings(own_world.environment))
    app.finalize()
    app.database = Database(own_world.database_url, check_schema_after=math.inf)
    app.workers.all()
    yield app
    app.database.close()
    app.close()


def test_a_worker_that_the_tables_stop_serving_takes_nothing_and_says_so(
    own_world: World, later: Celery
) -> None:
    worker = own_world.worker("-P", "prefork", "-c", "1")
    running = later.tasks["parity.hold"].delay()
    own_world.wait_for_status(running.id, "processing")

    contract(own_world, tells=True)
    wait_until_paused(own_world)
    waiting = [later.tasks["parity.add"].delay(n, 1) for n in range(3)]

    assert "takes no more jobs. The database" in worker.log()
    assert "serves releases that know 9999_later" in worker.log()
    releases = {check.name: check for check in check_workers(later)}["releases"]
    assert not releases.is_good
    assert f"(release {__version__})" in releases.found
    with pytest.raises(SchemaTooNew, match="9999_later"):
        own_world.task("add").delay(0, 0)
    own_world.release(running)
    own_world.wait_for_status(running.id, "completed")
    assert [own_world.row(sent.id)["status"] for sent in waiting] == ["queued"] * 3

    take_back(own_world)
    for n, sent in enumerate(waiting):
        assert own_world.wait_for_status(sent.id, "completed")["attempt"] == 1
        assert own_world.lines(sent.id, "add") == [f"{n}+1"], "once"


def test_a_job_that_comes_before_the_worker_has_heard_does_not_run_unrecorded(
    own_world: World, later: Celery
) -> None:
    """Nobody tells the worker; the process that is to run the job asks when it starts it."""
    worker = own_world.worker("-P", "prefork", "-c", "1")
    contract(own_world, tells=False)
    sent = later.tasks["parity.add"].delay(1, 1)

    wait_until(lambda: "job.given_back" in worker.log())
    assert own_world.row(sent.id)["status"] == "queued"
    assert own_world.lines(sent.id, "add") == []

    take_back(own_world)
    assert own_world.wait_for_status(sent.id, "completed")["attempt"] == 1
    assert own_world.lines(sent.id, "add") == ["1+1"], "once"
