"""The kit for unittest, and for Django's test cases, whose database is that of the jobs, too.

In a TestCase all rows are written inside the test's own transaction. In a TransactionTestCase they are committed, so
workers see them, and what is sent inside `atomic()` is part of it; Django empties its tables after each test, and the
kit those of the jobs.
"""

from __future__ import annotations

import sys
import unittest
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, LiteralString

from jobbridge.core.keys import Engine
from jobbridge.errors import UnsupportedOption
from jobbridge.postgres.caller_connection import DriverConnection, borrowed, driver_connection
from jobbridge.postgres.connect import connect
from jobbridge.postgres.schema.rendering import speak
from jobbridge.postgres.target import Target
from jobbridge.settings import in_schema, load_settings
from jobbridge.store.database import Database
from jobbridge.store.schema.migrate import migrate
from jobbridge.testing.apps import app_of, rebound
from jobbridge.testing.engines import opened, running
from jobbridge.testing.kit import Jobs
from jobbridge.testing.servers import shared_servers

#: What a test may have left; where the tables are, and who may come in, is not the test's.
_EMPTY: LiteralString = """
TRUNCATE public.jobs, public.job_details, public.job_keys, public.job_singletons, public.job_schedules,
    public.job_schedule_fires, public.job_families, public.job_family_members, public.job_chords, public.job_counts,
    public.job_hours, public.job_flow, public.job_flow_totals, public.job_count_changes, public.job_events,
    public.job_suspensions, public.job_queue_pauses, public.job_waits, public.job_inbox, public.job_batches,
    public.job_rules, public.job_limits, public.job_holds
"""
_EMPTY_BROKER: LiteralString = "TRUNCATE jobbridge_broker.messages, jobbridge_broker.dead_letters"


class JobBridgeMixin:
    """Put it in front of a TestCase: `class InvoiceTests(JobBridgeMixin, TestCase)`.

    Attributes:
        jobbridge_app: The application, or its name; None: the process's.
        jobbridge_engine: `inline`, `ce` or `ee`. Inside Django's TestCase: `inline`.
        jobbridge: What the test asks and tells: `self.jobbridge.drain()`.
    """

    jobbridge_app: ClassVar[Any] = None
    jobbridge_engine: ClassVar[str] = "inline"
    jobbridge: Jobs

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]  # unittest's, behind it
        stack = ExitStack()
        self.addCleanup(stack.close)  # type: ignore[attr-defined]  # the same
        chosen = type(self).jobbridge_app
        app = app_of(None, chosen) if isinstance(chosen, str) else app_of(chosen)
        if _is_in_djangos_transaction(self):
            self.jobbridge = stack.enter_context(_in_transaction(app, self.jobbridge_engine))
        elif _is_djangos(self):
            self.jobbridge = stack.enter_context(_in_djangos_database(app, self.jobbridge_engine))
        else:
            self.jobbridge = stack.enter_context(opened(self.jobbridge_engine, app, shared_servers()))


class JobBridgeTestCase(JobBridgeMixin, unittest.TestCase):
    """unittest's, with jobs."""


class _OneConnection(Database):
    """The tables as one connection sees them, in the transaction that is open there.

    Args:
        url: Where that connection leads.
        wrapper: Django's connection.
    """

    def __init__(self, url: str, wrapper: Any) -> None:
        super().__init__(url)
        self._wrapper = wrapper

    @contextmanager
    def connection(self, *, check_schema: bool = True) -> Iterator[DriverConnection]:
        """Lend it; what fails inside is undone, and the test's transaction goes on."""
        connection = borrowed(driver_connection(self._wrapper))  # Django's own leaves jsonb undecoded
        speak(connection, self.target.schema)
        with connection.transaction():
            yield connection


@contextmanager
def _in_transaction(app: Any, engine: str) -> Iterator[Jobs]:
    from django.db import connection

    if engine != "inline":
        raise UnsupportedOption(
            f"jobbridge_engine is {engine!r}, and no worker sees into the transaction of Django's TestCase.",
            hint="Use 'inline' there, or derive the test from Django's TransactionTestCase.",
        )
    url = _url_of(connection)
    # Not joined: what is sent is in the test's own transaction as it is, and no commit follows that would deliver it.
    told = {"job_runner_type": Engine.CELERY, "join_transactions": False}
    with rebound(app, database_url=url, settings=told):
        vars(app)["database"] = _OneConnection(url, connection)
        with running("inline", app) as jobs:
            yield jobs


@contextmanager
def _in_djangos_database(app: Any, engine: str) -> Iterator[Jobs]:
    from django.db import connection

    url = _url_of(connection)
    with opened(engine, app, shared_servers(), database_url=url) as jobs:
        yield jobs
    with connect(Target.of(url), "tests") as own:
        own.execute(_EMPTY)
        own.execute(_EMPTY_BROKER)


_migrated: set[str] = set()


def _url_of(connection: Any) -> str:
    """Give the URL of Django's test database, with our tables in it."""
    from sqlalchemy.engine import URL

    told = connection.settings_dict
    url = URL.create(
        "postgresql", username=told["USER"] or None, password=told["PASSWORD"] or None, host=told["HOST"] or None,
        port=int(told["PORT"]) if told["PORT"] else None, database=told["NAME"],
    ).render_as_string(hide_password=False)  # fmt: skip
    url = in_schema(url, load_settings().database_schema)
    if url not in _migrated:
        migrate(url)
        _migrated.add(url)
    return url


def _is_in_djangos_transaction(case: Any) -> bool:
    if "django.test" not in sys.modules:
        return False
    from django.test import TestCase

    return isinstance(case, TestCase)


def _is_djangos(case: Any) -> bool:
    if "django.test" not in sys.modules:
        return False
    from django.test import TransactionTestCase

    return isinstance(case, TransactionTestCase)
