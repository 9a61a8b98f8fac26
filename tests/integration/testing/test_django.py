"""The kit inside Django's TestCase, in a process of its own: Django is set up once for a process."""

from __future__ import annotations

import pytest

from jobbridge.dev.postgres import PostgresServer
from tests.support import clean_environment

_TESTS = """
import django
from django.conf import settings
import os

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1",
        "NAME": "shop", "USER": os.environ["SHOP_USER"], "PASSWORD": os.environ["SHOP_PASSWORD"],
        "PORT": os.environ["SHOP_PORT"]}},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"], USE_TZ=True, SECRET_KEY="x",
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
)
django.setup()

from django.contrib.auth.models import User
from contextlib import suppress

from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase
from django.test.runner import DiscoverRunner

from jobbridge import Celery
from jobbridge.testing import JobBridgeMixin, assert_enqueued, clock, fail_next

app = Celery("shop")

@app.task
def welcome(name):
    User.objects.filter(username=name).update(first_name="welcome")
    return User.objects.get(username=name).first_name

class Welcomes(JobBridgeMixin, TestCase):
    jobbridge_app = app

    def test_a_job_sees_what_the_test_has_not_committed(self):
        User.objects.create_user("ann")
        assert welcome.delay("ann").get(timeout=1) == "welcome"
        assert User.objects.get().first_name == "welcome"
        assert_enqueued(welcome, args=["ann"], count=1, status="completed")

    def test_rows_of_other_tests_are_gone(self):
        assert User.objects.count() == 0
        assert self.jobbridge.enqueued == []
        fail_next(welcome, RuntimeError("no"))
        assert welcome.delay("bob").state == "FAILURE"
        User.objects.create_user("bob")
        later = welcome.apply_async(("bob",), countdown=3600)
        clock.travel("2 hours")
        assert later.get(timeout=1) == "welcome"
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM jobs")
            assert cursor.fetchone() == (2,)

class Registrations(JobBridgeMixin, TransactionTestCase):
    jobbridge_app = app
    jobbridge_engine = "ce"

    def test_a_worker_sees_what_the_block_commits(self):
        with transaction.atomic():
            User.objects.create_user("cid")
            sent = welcome.delay("cid")
            assert self.jobbridge.enqueued == []
        assert sent.get(timeout=30) == "welcome"
        assert User.objects.get().first_name == "welcome"
        with suppress(ZeroDivisionError), transaction.atomic():
            welcome.delay("cid")
            raise ZeroDivisionError
        assert_enqueued(welcome, args=["cid"], count=1, status="completed")

    def test_rows_of_other_tests_are_gone(self):
        assert User.objects.count() == 0
        assert self.jobbridge.enqueued == []

runner = DiscoverRunner(verbosity=1, interactive=False)
old = runner.setup_databases()
import unittest
load = unittest.defaultTestLoader.loadTestsFromTestCase
result = unittest.TextTestRunner().run(unittest.TestSuite([load(Welcomes), load(Registrations)]))
with connection.cursor() as cursor:
    cursor.execute("SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM jobbridge_broker.messages)")
    assert cursor.fetchone() == (0, 0), "nothing is left of the tests"
runner.teardown_databases(old)
assert result.wasSuccessful() and result.testsRun == 4
print("all is well")
"""


def test_rows_are_in_the_transaction_of_djangos_testcase(
    postgres: PostgresServer, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "SHOP_USER": "jobbridge",
        "SHOP_PASSWORD": postgres.password,
        "SHOP_PORT": str(postgres.port),
    }
    for name, value in clean_environment(settings).items():
        monkeypatch.setenv(name, value)

    result = pytester.runpython(pytester.makepyfile(welcomes=_TESTS))

    assert result.ret == 0, result.stderr.str()
    result.stdout.fnmatch_lines(["all is well"])
