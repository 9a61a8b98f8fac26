"""The application's app is the process's app: also in threads that did not make it, as a web server's are."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.forked import run_python
from tests.support import clean_environment

SENDS = """
import threading

from concurrent.futures import ThreadPoolExecutor

lasting = ThreadPoolExecutor(1)

def in_a_lasting_thread(work):
    return lasting.submit(work).result()

def in_a_thread(work):
    got = []
    def run():
        try:
            got.append(work())
        except Exception as error:
            got.append(error)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(got[0], Exception):
        raise got[0]
    return got[0]

{before}
from celery import shared_task
from jobbridge import Celery, get_job_runner, job

app = Celery("mine")

@job("mine.handler")
def handler(ctx, data): ...

@shared_task(name="mine.shared")
def shared(): ...

@app.task(name="mine.own")
def own(): ...

in_a_thread(lambda: handler.delay({{}}))
{shared}
in_a_thread(own.delay)
runner = in_a_thread(get_job_runner)
assert runner.app is app, runner
assert get_job_runner() is runner
assert in_a_lasting_thread(get_job_runner) is runner
in_a_lasting_thread(lambda: get_job_runner().schedule_job("mine.handler", {{}}))
print("sent")
"""

BEFORE = {
    "nothing": "",
    "somebody asked for the current app": (
        "from celery import current_app\nin_a_thread(lambda: current_app.main)"
    ),
    "somebody asked for the runner": (
        "from jobbridge import get_job_runner\nassert in_a_lasting_thread(get_job_runner).app.main == 'jobbridge'"
    ),
    "a plain app is there, too": "import celery\nplain = celery.Celery('plain')\nplain.set_default()",
}


@pytest.mark.parametrize("before", BEFORE)
def test_threads_that_did_not_make_the_app_send_by_it(database_url: str, tmp_path: Path, before: str) -> None:
    # The shared tasks of a plain app that was made the default one go where that one sends them.
    shared = "" if "plain" in before else "in_a_thread(shared.delay)"
    done = run_python(
        ["-c", SENDS.format(before=BEFORE[before], shared=shared)],
        env=clean_environment({"DATABASE_URL": database_url}),
        cwd=tmp_path,
    )

    assert done.stdout.strip().endswith("sent"), done.stderr
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT type, count(*)::int FROM jobs GROUP BY 1").fetchall()
    expected = {"mine.handler": 2, "mine.own": 1}
    if "plain" not in before:
        expected["mine.shared"] = 1
    assert dict(rows) == expected
