"""`manage.py test` has a database of its own: jobs go there, with our tables, and it can be dropped at the end."""

from __future__ import annotations

import psycopg
import pytest

from tests.integration.django.project import Project

_TESTS = """
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase
from jobbridge.django.models import Job
from mysite.celery import app
from shop.tasks import add


class InATransaction(TestCase):
    def test_it_is_rolled_back_with_the_test(self):
        sent = add.delay(1, 1)
        self.assertEqual(Job.objects.get(job_id=sent.id).status, "queued")
        self.assertEqual(Job.objects.count(), 1)

    def test_nothing_of_another_test_is_there(self):
        add.delay(1, 1)
        self.assertEqual(Job.objects.count(), 1)

    def test_on_commit(self):
        with self.captureOnCommitCallbacks(execute=True) as called:
            add.delay_on_commit(2, 2)
        self.assertEqual(len(called), 1)
        self.assertEqual(Job.objects.count(), 1)


class Committing(TransactionTestCase):
    def test_it_is_in_the_test_database(self):
        sent = add.delay(3, 3)
        self.assertTrue(connection.settings_dict["NAME"].startswith("test_"))
        self.assertTrue(app.database.target.database.startswith("test_"), app.database.target)
        self.assertEqual(Job.objects.get(job_id=sent.id).status, "queued")
"""


@pytest.mark.parametrize(
    ("options", "environment"),
    [([], {}), (["--parallel", "2"], {}), ([], {"DATABASE_URL": "the configured one"})],
    ids=["alone", "parallel", "DATABASE_URL names the configured one"],
)
def test_jobs_of_a_test_run_are_in_its_database(
    project: Project, empty_database_url: str, options: list[str], environment: dict[str, str]
) -> None:
    project.environment = dict.fromkeys(environment, empty_database_url)
    project.add("shop/tests.py", _TESTS)
    done = project.manage("test", *options)
    assert "Ran 4 tests" in done.stderr
    assert "OK" in done.stderr
    name = empty_database_url.rpartition("/")[2]
    with psycopg.connect(empty_database_url) as connection:
        left = connection.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE %s", [f"test_{name}%"]
        ).fetchall()
        assert left == []
        assert connection.execute("SELECT to_regclass('public.jobs')").fetchone() == (None,)
