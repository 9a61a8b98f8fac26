"""A worker dies between the end of a chord's part and the part's count."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import chord

from jobbridge import Celery
from jobbridge.core.events import Completed, Started
from jobbridge.core.keys import Engine
from jobbridge.settings import load_settings
from jobbridge.store.jobs.keys import KeyStore
from tests.conftest import StartWorker
from tests.parity.tasks import make_app


def _end_in_the_books(app: Celery, task_id: str, result: int) -> None:
    """Leave what a worker leaves that is killed when the result is stored: its message comes again."""
    row = app.jobs.find_external(task_id)
    assert row is not None
    with app.database.connection() as connection:
        found = connection.execute("SELECT delivery FROM jobs WHERE job_id = %s", [row.key.job_id]).fetchone()
    assert found is not None
    started = app.recorder.record(
        Started(
            key=row.key,
            task_id=task_id,
            type=row.type,
            engine=Engine.CELERY,
            delivery=found[0],
            queue="celery",
            worker="dead",
        )
    )
    app.recorder.record(Completed(key=row.key, attempt=started.attempt, result=result))


@pytest.mark.parametrize("dead", [1, 3])
def test_a_chord_goes_on_when_the_worker_died_before_it_counted_a_part(
    dead: int, database_url: str, tmp_path: Path, celery_worker: StartWorker
) -> None:
    environment = {"DATABASE_URL": database_url, "PARITY_FOLDER": str(tmp_path)}
    app = make_app(settings=load_settings(environment))
    app.finalize()
    add = app.tasks["parity.add"]
    body = chord([add.s(1, 1), add.s(2, 2), add.s(3, 3)], app.tasks["parity.total"].s()).delay()
    for number, part in enumerate(body.parent.results[:dead], 1):
        _end_in_the_books(app, part.id, 2 * number)

    celery_worker("tests.parity.app", "-P", "threads", **environment)

    assert body.get(timeout=30) == 12
    with app.database.connection() as connection:
        assert connection.execute("SELECT key FROM job_keys").fetchall() == []
    app.close()
    app.database.close()


def test_a_member_is_counted_once_and_keeps_its_place(database_url: str) -> None:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}))
    keys = KeyStore(app.database)

    assert [keys.count_once("c", member, ttl=60) for member in ("a", "b", "a", "c", "b")] == [1, 2, 1, 3, 2]
    keys.delete_count("c")
    assert keys.count_once("c", "b", ttl=60) == 1
    app.database.close()
