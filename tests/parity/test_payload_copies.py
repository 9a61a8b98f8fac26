"""What is large is in Postgres once, wherever its job is, in no broker of others nor at Temporal, and goes with it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from celery import chain, group

from jobbridge import Celery
from jobbridge.app.publish.message import reference
from jobbridge.core.keys import Engine, job_id_for
from jobbridge.settings import load_settings
from jobbridge.temporal.wire.contract import PAYLOAD_LIMIT
from tests.conftest import StartWorker
from tests.parity import size_tasks  # noqa: F401  (its tasks are the app's)
from tests.parity.conftest import World
from tests.parity.tasks import make_app
from tests.proxy import Proxy
from tests.redis_server import run_redis
from tests.support import Looking, wait_until

TIMEOUT = 60
SIZE = 300_000


def large(name: str) -> str:
    """Give a text that is known by its end; its beginning is in the message's headers, for people."""
    return "x" * SIZE + f"-marker-{name}-end"


def copies(looking: Looking, name: str) -> int:
    """Count how often the text is in the database, as text or as bytes."""
    marker = f"marker-{name}-end"
    tables = looking.rows(
        "SELECT format('%%I.%%I', schemaname, tablename) AS name FROM pg_tables "
        "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
    )
    pattern = f"{marker}|{marker.encode().hex()}"
    number = 0
    for each in tables:
        counted = (
            "SELECT coalesce(sum(array_length(regexp_split_to_array(held::text, %s), 1) - 1), 0)::int AS number "
            f"FROM {each['name']} AS held WHERE held::text ~ %s"
        )
        number += looking.rows(counted, [pattern, pattern])[0]["number"]
    return number


def test_what_is_large_is_stored_once_and_goes_with_its_job(own_world: World) -> None:
    world, looking = own_world, own_world.looking
    length = world.task("length")
    length.delay(large("plain"))
    length.apply_async((large("pickled"),), serializer="pickle")
    later = length.apply_async((large("later"),), countdown=3600)
    chain(length.si(""), length.si(large("chained"))).delay()
    group([length.si(large("grouped")), length.si("")]).delay()

    names = ["plain", "later", "chained", "grouped"]  # what is pickled at Temporal's is in base64
    assert {name: copies(looking, name) for name in names} == dict.fromkeys(names, 1)
    assert copies(looking, "pickled") == (1 if world.engine is Engine.CELERY else 0)
    if world.engine is Engine.TEMPORAL:
        assert in_temporal(world) == []

    world.worker("-P", "prefork")
    retries, failed = world.task("large_retries").delay(large("retried")), world.task("large_fails")
    lost = failed.delay(large("failed"))
    world.wait_for_status(retries.id, "retrying", timeout=TIMEOUT)
    world.wait_for_status(lost.id, "failed", timeout=TIMEOUT)
    wait_until(lambda: copies(looking, "chained") == 0, timeout=TIMEOUT)
    assert {name: copies(looking, name) for name in ("plain", "pickled", "grouped", "failed")} == {
        "plain": 0,
        "pickled": 0,
        "grouped": 0,
        "failed": 0,
    }
    wait_until(lambda: copies(looking, "retried") == 1, timeout=TIMEOUT)
    for each, name in ((retries, "retried"), (later, "later")):
        world.app.cancel_job(each.id)
        world.app.control.revoke(each.id)
        if world.engine is Engine.TEMPORAL:
            assert copies(looking, name) == 0
    if (
        world.engine is Engine.CELERY
    ):  # a message that waits for its time is dropped when it is taken, or purged
        world.app.control.purge()
        assert (copies(looking, "retried"), copies(looking, "later")) == (0, 0)


def in_temporal(world: World) -> list[str]:
    async def look(client: Any) -> list[str]:
        found = []
        async for each in client.list_workflows(f"TaskQueue = '{world.task_queue}'"):
            history = await client.get_workflow_handle(each.id, run_id=each.run_id).fetch_history()
            raw = b"".join(event.SerializeToString() for event in history.events)
            if b"-marker-" in raw + each.raw_info.SerializeToString():
                found.append(each.id)
        return found

    return list(world.app.delivery(Engine.TEMPORAL).client.call(look))


def test_the_limit_is_one_on_both_engines() -> None:
    assert reference.LIMIT == PAYLOAD_LIMIT


# -- at a broker of others


@pytest.fixture
def elsewhere(database_url: str, tmp_path: Path) -> Iterator[tuple[Celery, dict[str, str]]]:
    with run_redis(tmp_path) as broker:
        (tmp_path / "notes").mkdir()
        environment = {
            "DATABASE_URL": database_url,
            "PARITY_FOLDER": str(tmp_path / "notes"),
            "CELERY_BROKER_URL": broker,
        }
        app = make_app(settings=load_settings(environment), broker=broker)
        app.finalize()
        yield app, environment
        app.close()
        app.database.close()
        gc.collect()


def in_redis(broker: str) -> int:
    """Give how much Redis has of lists and hashes, in characters."""
    with redis.Redis.from_url(broker) as client:
        kinds = {key: client.type(key) for key in client.scan_iter()}
        lists = [b"".join(client.lrange(key, 0, -1)) for key, kind in kinds.items() if kind == b"list"]
        hashes = [b"".join(client.hvals(key)) for key, kind in kinds.items() if kind == b"hash"]
        return len(b"".join([*lists, *hashes]))


def test_what_is_large_goes_by_reference_over_a_broker_of_others(
    elsewhere: tuple[Celery, dict[str, str]], celery_worker: StartWorker
) -> None:
    app, environment = elsewhere
    broker, length = environment["CELERY_BROKER_URL"], app.tasks["parity.length"]
    with closing(Looking(environment["DATABASE_URL"])) as looking:
        sent = [
            length.delay(large("plain")),
            length.apply_async((large("pickled"),), serializer="pickle", compression="zlib"),
            chain(length.si(""), length.si(large("chained"))).delay(),
        ]
        cancelled = length.delay(large("cancelled"))
        assert app.cancel_job(cancelled.id)
        assert in_redis(broker) < 20_000
        assert (copies(looking, "plain"), copies(looking, "cancelled")) == (1, 0)
        assert looking.rows("SELECT FROM jobs WHERE undelivered_since IS NOT NULL") == []  # no relay's

        celery_worker("tests.parity.app", "-P", "prefork", **environment)

        assert sent[0].get(timeout=TIMEOUT) == SIZE + len("-marker-plain-end")
        assert sent[1].get(timeout=TIMEOUT) == SIZE + len("-marker-pickled-end")
        assert sent[2].get(timeout=TIMEOUT) == SIZE + len("-marker-chained-end")
        again = app.tasks["parity.large_retries_once"].delay(large("retried"))
        assert again.get(timeout=TIMEOUT) == [1, SIZE + len("-marker-retried-end")]
        assert app.jobs.find(job_id_for(cancelled.id)).status == "cancelled"  # type: ignore[union-attr]
        names = ("plain", "pickled", "chained", "retried")
        assert {name: copies(looking, name) for name in names} == dict.fromkeys(names, 0)
        wait_until(lambda: in_redis(broker) == 0, timeout=TIMEOUT, message="all is acknowledged")


def test_a_message_whose_row_is_gone_runs_nothing(
    elsewhere: tuple[Celery, dict[str, str]], celery_worker: StartWorker
) -> None:
    app, environment = elsewhere
    gone = app.tasks["parity.length"].delay(large("gone"))
    with closing(Looking(environment["DATABASE_URL"])) as looking:
        looking.rows("DELETE FROM jobs WHERE job_id = %s RETURNING 1", [job_id_for(gone.id)])
        worker = celery_worker("tests.parity.app", "-P", "solo", **environment)

        assert app.tasks["parity.length"].delay("").get(timeout=TIMEOUT) == 0
        wait_until(lambda: "which is gone" in worker.log(), timeout=TIMEOUT)


def test_a_message_whose_arguments_cannot_be_read_now_waits_for_them(
    elsewhere: tuple[Celery, dict[str, str]], celery_worker: StartWorker
) -> None:
    app, environment = elsewhere
    address = urlsplit(environment["DATABASE_URL"])
    assert address.port is not None
    with Proxy(address.port) as proxy:
        url = environment["DATABASE_URL"].replace(f"{address.hostname}:{address.port}", proxy.address)
        worker = celery_worker("tests.parity.app", "-P", "solo", **{**environment, "DATABASE_URL": url})
        proxy.cut()
        waits = app.tasks["parity.length"].delay(large("waits"))
        wait_until(lambda: "worker.arguments_awaited" in worker.log(), timeout=TIMEOUT)
        proxy.mend()

        assert waits.get(timeout=TIMEOUT) == SIZE + len("-marker-waits-end")
        row = app.jobs.find(job_id_for(waits.id))
        assert row is not None
        assert row.attempt == 1
        assert worker.is_running
