"""Named steps of a job: what the handler reports, and what a later attempt need not do again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, LiteralString
from uuid import UUID, uuid4

from jobbridge.codec.rows import place_of, seal_error
from jobbridge.core.durable import Suspended
from jobbridge.core.keys import JobKey
from jobbridge.core.shown import cut, error_line
from jobbridge.core.status import JobStatus
from jobbridge.errors import DatabaseError, JobCancelled
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.database import Database
from jobbridge.store.values import as_jsonb, as_text

_log = logging.getLogger(__name__)

#: Bytes of what a step failed with; the error of its job says it, too.
_MOST_OF_ERROR = 1_000_000

FIND_FINISHED: LiteralString = """
SELECT result FROM public.job_details
WHERE tenant = %(tenant)s AND job_id = %(job_id)s AND step_name = %(name)s AND step_key = %(key)s
  AND status = 'completed'
ORDER BY sequence DESC
LIMIT 1
"""

#: The id comes from the caller, so that a repetition after a lost connection makes no second row. No columns of the
#: key are named, for in partitions it has one more.
BEGIN: LiteralString = """
INSERT INTO public.job_details
    (tenant, detail_id, job_id, step_name, step_key, status, retry_count, created_at, updated_at)
VALUES (
    %(tenant)s, %(detail_id)s, %(job_id)s, %(name)s, %(key)s, 'processing', %(attempt)s,
    clock_timestamp(), clock_timestamp()
)
ON CONFLICT DO NOTHING
"""

END: LiteralString = """
UPDATE public.job_details
SET status = %(status)s, result = %(result)s, error = %(error)s,
    processed_at = clock_timestamp(), updated_at = clock_timestamp()
WHERE tenant = %(tenant)s AND detail_id = %(detail_id)s AND job_id = %(job_id)s AND status = 'processing'
"""


#: Something that happened to a job, at once and not by its handler.
NOTE: LiteralString = """
INSERT INTO public.job_details
    (tenant, job_id, step_name, status, retry_count, metadata, created_at, updated_at, processed_at)
VALUES (
    %(tenant)s, %(job_id)s, %(name)s, 'completed', %(attempt)s, %(metadata)s,
    clock_timestamp(), clock_timestamp(), clock_timestamp()
)
"""

#: The step of a job that went to another engine than its own.
FALLBACK = "fallback"
#: Of a job that its engine had lost, and that was delivered again.
RECOVERED = "recovered"
#: Of a job that a cutover brought to another engine, or from another broker.
MOVED = "moved"


def note(
    connection: DriverConnection, job: JobKey, name: str, metadata: Mapping[str, Any], *, attempt: int = 0
) -> None:
    """Write that something happened to a job, in the caller's transaction."""
    known = {"tenant": job.tenant, "job_id": job.job_id, "name": name, "attempt": attempt}
    connection.execute(NOTE, known | {"metadata": as_jsonb(dict(metadata))})


def begin(connection: DriverConnection, job: JobKey, name: str, *, detail_id: UUID, attempt: int) -> None:
    """Open a step that no handler runs, in the caller's transaction."""
    known = {"tenant": job.tenant, "job_id": job.job_id, "detail_id": detail_id}
    connection.execute(BEGIN, known | {"name": name, "key": None, "attempt": attempt})


def end(
    connection: DriverConnection, job: JobKey, detail_id: UUID, status: JobStatus, *, result: Any = None
) -> None:
    """Close such a step, in the caller's transaction."""
    known = {"tenant": job.tenant, "job_id": job.job_id, "detail_id": detail_id}
    known |= {"status": status.value, "error": None}
    connection.execute(END, known | {"result": None if result is None else as_jsonb(result)})


@dataclass(kw_only=True, slots=True)
class Step:
    """A part of a job.

    Attributes:
        name: What is done.
        key: What it is done for; with one, a finished step is not done again.
        is_done: An earlier attempt finished it.
        result: JSON; what that attempt left, or what this one sets.
    """

    name: str
    key: str | None = None
    is_done: bool = False
    result: Any = None
    detail_id: UUID = field(default_factory=uuid4)


class StepStore:
    """Writes the steps that handlers report."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def step(self, job: JobKey, attempt: int, name: str, *, key: str | None = None) -> Iterator[Step]:
        """Run the body as a step of that attempt; if it was finished before, with nothing written.

        Writing is bookkeeping: if it fails, the body runs all the same. Asking whether the step is finished is
        not: to guess could do a thing twice, so that fails.

        Raises:
            DatabaseUnavailable: It cannot be asked whether the step is finished.
        """
        step = Step(name=name, key=key)
        if key is not None and self._is_finished(job, step):
            yield step
            return
        self._write(BEGIN, job, step, {"name": name, "key": key, "attempt": attempt})
        try:
            yield step
        except BaseException as error:
            # A suspended job makes the step anew when it goes on.
            is_stopped = isinstance(error, JobCancelled | Suspended)
            status = JobStatus.CANCELLED if is_stopped else JobStatus.FAILED
            self._end(job, step, status, error=cut(error_line(error), _MOST_OF_ERROR))
            raise
        self._end(job, step, JobStatus.COMPLETED)

    def _is_finished(self, job: JobKey, step: Step) -> bool:
        params = {"tenant": job.tenant, "job_id": job.job_id, "name": step.name, "key": step.key}
        row = self._database.run(lambda own: own.execute(FIND_FINISHED, params).fetchone())
        if row is None:
            return False
        step.is_done = True
        step.result = self._database.codec.open_json(row[0], place_of(job.job_id, "result"))
        return True

    def _end(self, job: JobKey, step: Step, status: JobStatus, error: str | None = None) -> None:
        result, codec = step.result, self._database.codec
        if codec and result is not None:
            result = codec.seal_json(result, place_of(job.job_id, "result"))
        if codec and error is not None:
            error = seal_error(codec, error, job.job_id)
        told = {"result": None if result is None else as_jsonb(result), "error": as_text(error)}
        self._write(END, job, step, {"status": status.value} | told)

    def _write(self, statement: LiteralString, job: JobKey, step: Step, params: dict[str, Any]) -> None:
        known = params | {"tenant": job.tenant, "job_id": job.job_id, "detail_id": step.detail_id}
        try:
            self._database.run(lambda own: own.execute(statement, known))
        except DatabaseError as error:
            _log.warning(
                "job_step_not_written",
                extra={"job_id": str(job.job_id), "step": step.name, "error": str(error)},
            )
