"""`asset_import` of very many rows, and with a worker that is killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from jobbridge.bootstrap import make_app
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.settings import load_settings
from tests.books import Books
from tests.conftest import StartWorker
from tests.support import clean_environment, wait_until
from tests.uploads import as_csv, upload

ROWS = 100_000

#: The import in a process of its own; prints its peak of memory, in KiB, after 1,000 rows and after all.
MEASURE = """
import json, resource, sys
from contextlib import contextmanager
import psycopg
from jobbridge.handlers.assets.importing import Import
from jobbridge.handlers.assets.models import ImportAssets
from jobbridge.handlers.files import ASSET_UPLOAD, keep_file
from tests.books import Books

def lines(rows):
    yield b"name,client_id,serial_number\\r\\n"
    for number in range(rows):
        yield f"Workstation {number},lakeside,SN{number:07}\\r\\n".encode()

def peak():
    # Not ru_maxrss, where it can be had: on Linux that begins with the peak of whoever started this process.
    try:
        lines = open("/proc/self/status").read().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

def note(share, progress):
    if progress.rows == 1000:
        peaks.append(peak())

@contextmanager
def transaction():
    with connection.transaction():
        yield connection

peaks = []
Books(sys.argv[1], "t1")
connection = psycopg.connect(sys.argv[1])
with transaction():
    file = keep_file(connection, "t1", kind=ASSET_UPLOAD, name="big.csv", media_type="text/csv",
                     content=lines(int(sys.argv[2])))
task = Import(transaction=transaction, tenant="t1", job_id="big", data=ImportAssets(file_id=file.file_id))
progress = task.import_rows(file, note)
task.finish(file)
print(json.dumps({"created": progress.created, "peaks": [*peaks, peak()]}))
"""


@pytest.mark.long
def test_a_hundred_thousand_rows_take_no_more_memory_than_a_thousand(database_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, database_url, str(ROWS)],
        capture_output=True,
        text=True,
        timeout=220,
        env=clean_environment(),
        check=False,
    )

    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["created"] == ROWS
    after_a_thousand, at_the_end = measured["peaks"]
    print(f"peak memory: {after_a_thousand} KiB after 1,000 rows, {at_the_end} KiB after {ROWS}")
    assert at_the_end - after_a_thousand < 8 * 1024


def test_an_import_whose_worker_is_killed_goes_on_in_another(
    database_url: str, celery_worker: StartWorker
) -> None:
    books = Books(database_url, "t1")
    rows = 10_000
    file = upload(books, as_csv((f"Device {number}", "lakeside", f"SN-{number}") for number in range(rows)))
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}))
    data = {"tenantId": "t1", "fileId": str(file.file_id)}
    job = app.enqueue("asset_import", data, engine=Engine.CELERY)
    imported = "SELECT count(*) FROM psa.asset_import_rows"

    worker = celery_worker("jobbridge", "-P", "threads", "-c", "1", DATABASE_URL=database_url)
    wait_until(lambda: books.value(imported) > 0, message="it is in the middle")
    worker.kill()
    assert 0 < books.value(imported) < rows, "it was killed in the middle"
    celery_worker("jobbridge", "-P", "threads", "-c", "1", DATABASE_URL=database_url)

    def row_at_the_end() -> object:
        row = app.jobs.find(job.job_id)
        return row if row is not None and row.status.is_final else None

    row = wait_until(row_at_the_end, timeout=60)
    assert (row.status, row.attempt) == (JobStatus.COMPLETED, 2), row.error  # type: ignore[attr-defined]
    assert row.result == {  # type: ignore[attr-defined]
        "file": "devices.csv", "rows": rows, "created": rows, "duplicates": 0, "invalid": 0, "report": None
    }  # fmt: skip
    assert books.value("SELECT count(*) FROM psa.assets") == books.value(imported) == rows
    app.close()
    app.database.close()
