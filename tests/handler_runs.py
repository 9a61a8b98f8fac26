"""Attempts of a handler's job without a worker: the tables, the steps and their rows are real."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from jobbridge.core.keys import SYSTEM_TENANT, JobKey, TenantId
from jobbridge.errors import JobCancelled
from jobbridge.store.database import Database
from jobbridge.store.jobs.steps import Step, StepStore
from tests.dying import Mortal


class Attempt:
    """One attempt of a job; dies after `lives` commits and steps, if it is told to.

    Attributes: messages: what it said of its progress; cancelled_after: steps after which somebody cancels the job.
    """

    def __init__(
        self, database: Database, tenant: str, job_id: str, *, lives: int | None = None, number: int = 1
    ) -> None:
        self.job_id, self.tenant_id = job_id, tenant
        self.messages: list[str] = []
        self.cancelled_after: int | None = None
        self._steps, self._number, self._database = StepStore(database), number, database
        self._mortal = Mortal(database.transaction, 10**6 if lives is None else lives)

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        with self._mortal.transaction() as connection:
            connection.execute("SELECT set_config('app.current_tenant', %s, true)", [self.tenant_id])
            yield connection

    @contextmanager
    def step(self, name: str, *, key: str | None = None) -> Iterator[Step]:
        job = JobKey(tenant=TenantId(self.tenant_id), job_id=uuid.UUID(self.job_id))
        with self._steps.step(job, self._number, name, key=key) as step:
            yield step
            self._mortal.step()  # done, and not yet recorded
        if self.cancelled_after is not None:
            self.cancelled_after -= 1

    def progress(self, done: float, total: float = 100, message: str | None = None) -> None:
        self.messages.append(message or "")

    def check_cancelled(self) -> None:
        if self.cancelled_after == 0:
            raise JobCancelled("enough")


class Jobs:
    """Jobs for a database."""

    def __init__(self, url: str) -> None:
        self.database = Database(url)

    def attempt(self, tenant: str = SYSTEM_TENANT, job_id: str = "", **options: Any) -> Attempt:
        """The first attempt of a new job, or another one of that job."""
        return Attempt(self.database, tenant, job_id or str(uuid.uuid4()), **options)

    def table(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self.database.transaction() as connection:
            return connection.execute(statement.encode(), values).fetchall()
