"""Messages that the broker gave up: those of jobs are told by their rows, the others by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import tests.parity.dead_tasks  # noqa: F401  # the app has its tasks
from jobbridge import Celery
from jobbridge.app.dead.letters import DeadFilter, by_id, letters
from jobbridge.app.dead.purge import purge
from jobbridge.app.dead.redrive import redrive
from jobbridge.settings import load_settings
from jobbridge.store.workers.dead import clock
from tests.conftest import StartWorker
from tests.parity.tasks import make_app
from tests.support import wait_until


@pytest.fixture
def environment(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {"DATABASE_URL": database_url, "PARITY_FOLDER": str(tmp_path)}


@pytest.fixture
def app(environment: dict[str, str]) -> Iterator[Celery]:
    app: Any = make_app(settings=load_settings(environment), include=["tests.parity.dead_tasks"])
    app.loader.import_default_modules()
    yield app
    app.close()


def _buried(app: Celery) -> list[str]:
    with app.database.connection() as connection:
        rows = connection.execute(
            "SELECT correlation_id FROM jobbridge_broker.dead_letters ORDER BY id"
        ).fetchall()
    return [row[0] for row in rows]


def test_a_dead_letter_without_a_row_is_found_sent_again_and_purged(
    app: Celery, environment: dict[str, str], celery_worker: StartWorker, tmp_path: Path
) -> None:
    task = app.tasks["parity.rejects"]
    plain, other = (task.apply_async(track=False) for _ in range(2))
    tracked = task.delay()
    celery_worker("tests.parity.app", **environment)
    wait_until(lambda: sorted(_buried(app)) == sorted(each.id for each in (plain, other, tracked)))

    found = list(letters(app, DeadFilter()))

    assert (found[0].task_id, found[0].key is None, found[0].attempts) == (tracked.id, False, 1)
    assert {each.task_id for each in found[1:]} == {plain.id, other.id}
    assert {each.error for each in found[1:]} == {"Dead letter: rejected"}
    [of_plain] = [each for each in found if each.task_id == plain.id]
    assert by_id(app, of_plain.id) == of_plain

    for each in (plain, tracked):
        (tmp_path / each.id / "mended").touch()
    done = redrive(app, DeadFilter(ids=frozenset({of_plain.id, tracked.id})))

    assert (done.sent, dict(done.refused)) == (2, {})
    assert tracked.get(timeout=30) == 2
    wait_until(lambda: (tmp_path / plain.id / "rejects").read_text().splitlines() == ["", ""])
    assert _buried(app) == [other.id]
    assert purge(app, DeadFilter(type="parity.rejects"), died_before=clock(app.database)) == 1
    assert not _buried(app)


def test_the_number_of_crashes_is_a_setting(
    database_url: str, environment: dict[str, str], celery_worker: StartWorker, app: Celery
) -> None:
    result = app.send_task("deadly.exits_hard")
    celery_worker("tests.integration.app.deadly_app", JOB_RUNNER_MAX_CRASHES="3", **environment)

    with pytest.raises(Exception, match="too many times"):
        result.get(timeout=60)
    with psycopg.connect(database_url) as connection:
        [(attempts,)] = connection.execute("SELECT attempt FROM jobs").fetchall()
    assert attempts == 3
