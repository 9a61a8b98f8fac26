"""JobBridge's books over a broker that is not ours: kombu's own SQL transport."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import chord

from jobbridge.errors import UnsupportedOption
from jobbridge.settings import load_settings
from tests.conftest import StartWorker
from tests.parity import durable_tasks  # noqa: F401  # its tasks are the app's
from tests.parity.tasks import make_app


# kombu 5.7's own models use a loader strategy that SQLAlchemy 2.1 deprecates.
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
def test_a_job_over_the_stock_sql_broker_has_its_row(
    database_url: str, tmp_path: Path, celery_worker: StartWorker
) -> None:
    broker = database_url.replace("postgresql://", "sqla+postgresql+psycopg://")
    environment = {"DATABASE_URL": database_url, "PARITY_FOLDER": str(tmp_path), "CELERY_BROKER_URL": broker}
    app = make_app(settings=load_settings(environment), broker=broker)
    app.finalize()
    celery_worker("tests.parity.app", "-P", "threads", **environment)

    result = app.tasks["parity.add"].delay(2, 3)

    assert result.get(timeout=30) == 5
    row = app.jobs.find_external(result.id)
    assert row is not None
    assert (row.status, row.attempt, row.result) == ("completed", 1, 5)
    many = chord(
        [app.tasks["parity.add"].s(1, 2), app.tasks["parity.add"].s(3, 4)], app.tasks["parity.total"].s()
    )
    assert many.delay().get(timeout=30) == 10
    retried = app.tasks["parity.retry_until"].delay(1)
    assert retried.get(timeout=30) == 2
    # A sleep goes by Celery's ETA; nobody could wake a job in the transaction of an event.
    assert app.tasks["parity.durable.naps"].delay(7).get(timeout=30) == 7
    with pytest.raises(UnsupportedOption, match="cannot wait"):
        app.tasks["parity.durable.calls_waiting"].delay({"raises": True}).get(timeout=30)
    with (
        pytest.raises(UnsupportedOption),
        app.database.connection() as connection,
        app.enqueue_on(connection),
    ):
        app.tasks["parity.add"].delay(1, 1)
    app.close()
    app.database.close()
