"""What a running job has recorded, and what of it the handler has taken so far."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from kombu.utils import json as kombu_json

from jobbridge.app.execute.claim import Run
from jobbridge.app.execute.together import patiently
from jobbridge.codec.rows import place_of, seal_error
from jobbridge.core.durable import Changed, Kind, NewStep, Suspended, call_id, check_name
from jobbridge.core.shown import cut, error_line
from jobbridge.core.status import JobStatus
from jobbridge.errors import DatabaseUnavailable, HandlerChanged, JobCancelled, UnsupportedOption
from jobbridge.store.waits import records
from jobbridge.store.waits.records import Record

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.postgres.caller_connection import DriverConnection

Json = Any  # what json.loads returns

#: Bytes of what a step failed with.
_MOST_OF_ERROR = 1_000_000


class Recorded:
    """The recorded calls of one start of a job; read when the first is asked for.

    Args:
        app: Whose job.
        run: The attempt.
        name: The task's name, for errors.
    """

    def __init__(self, app: Celery, run: Run, name: str) -> None:
        self.app = app
        self.run = run
        self._name = name
        self._records: dict[str, Record] | None = None
        self._untaken: dict[str, tuple[Record, int]] = {}  # with their place among all
        self._reached = -1  # the place of the last one taken
        self._occurrences: Counter[tuple[Kind, str]] = Counter()
        self._has_read = False
        self._read_at = 0.0
        self._now = datetime.min
        #: Of a suspension that somebody swallowed.
        self.suspended: Suspended | None = None
        #: More than one call may be under way: which comes first is nobody's choice.
        self.is_concurrent = False
        self.under_way = 0

    @property
    def attempt(self) -> int:
        assert self.run.attempt is not None  # looked at when it was read
        return self.run.attempt

    def now(self) -> datetime:
        """Give the time by the database's clock, which is one for all workers."""
        self._load()
        return self._now + timedelta(seconds=time.monotonic() - self._read_at)

    def named(self, kind: Kind, name: str, key: str | None) -> str:
        """Give by what this call is known; each asking is a further one of its name.

        Raises:
            Suspended: The job is suspended, and somebody kept that to himself.
            UnsupportedOption: The name or the key is none.
        """
        if self.suspended is not None:
            raise self.suspended
        try:
            check_name(name, f"The name of a {kind.value}")
            if key is not None:
                check_name(key, f"The key of {name!r}")
        except ValueError as error:
            raise UnsupportedOption(str(error)) from None
        if key is None:
            self._occurrences[kind, name] += 1
        return call_id(kind, name, key=key, occurrence=self._occurrences[kind, name])

    def take(self, call: str) -> Record | None:
        """Give what is recorded of a call; None: it is new, or failed in an attempt before this one.

        Raises:
            Changed: It is new, and something recorded was not asked for.
        """
        known = self._load().get(call)
        self._note_taken(call)
        if known is None:
            if self._untaken and not self.is_concurrent:
                raise Changed(HandlerChanged.by(self._name, call, list(self._untaken)))
            return None
        if known.status is JobStatus.FAILED and known.metadata.get("retries") != self.run.retries:
            # Made anew, it may go otherwise than it went: what came after it is taken if it is asked for.
            self._untaken.clear()
            return None
        return known

    def take_if_known(self, call: str) -> Record | None:
        """Give what is recorded of a call that may be missing wherever it stands."""
        known = self._load().get(call)
        self._note_taken(call)
        return known

    @property
    def is_new(self) -> bool:
        """Whether nothing that is recorded lies ahead."""
        self._load()
        return all(place < self._reached for _, place in self._untaken.values())

    def _note_taken(self, call: str) -> None:
        taken = self._untaken.pop(call, None)
        if taken is not None:
            self._reached = max(self._reached, taken[1])

    @property
    def untaken(self) -> list[str]:
        """The recorded calls that the handler has not made; only of those that were read."""
        return list(self._untaken)

    def of_kind(self, kind: Kind) -> list[Record]:
        """Give what is recorded of a kind, in the order in which it was made."""
        return [record for record in self._load().values() if record.kind is kind]

    def forget_reading(self) -> None:
        """Have it read again: somebody else has written."""
        self._records = None

    def _load(self) -> dict[str, Record]:
        if self._records is not None:
            return self._records
        if self.run.attempt is None:
            raise DatabaseUnavailable(
                "The start of the job could not be recorded, so what it recorded is not known."
            )
        now, found = self.app.database.run(lambda own: records.read(own, self.run.key))
        self._read_at, self._now = time.monotonic(), now
        is_first, self._has_read = not self._has_read, True
        self._records = {record.call: record for record in found}
        if is_first:
            self._untaken = {
                call: (record, place)
                for place, (call, record) in enumerate(self._records.items())
                if record.kind not in _OF_THE_END
            }
        return self._records

    # -- values

    def encoded(self, value: Any, what: str) -> Json:
        """Give a value as it is recorded: JSON, in which dates, uuids and decimals are told apart from text.

        Raises:
            UnsupportedOption: It is no JSON.
        """
        plain = value.model_dump(mode="json", by_alias=True) if hasattr(value, "model_dump") else value
        try:
            text = kombu_json.dumps(plain)
        except (TypeError, ValueError, RecursionError) as error:
            raise UnsupportedOption(
                f"What {what} gave cannot be recorded as JSON: {error}.",
                hint="Give plain values: text, numbers, lists, mappings, dates.",
            ) from None
        return self._sealed(json.loads(text))

    def decoded(self, stored: Json) -> Any:
        """Give a recorded value."""
        if stored is None:
            return None
        return kombu_json.loads(json.dumps(self.app.database.codec.open_json(stored, self._place)))

    def encoded_error(self, error: BaseException) -> Json:
        """Give an exception as Celery's result backends keep it."""
        told = self.app.backend.prepare_exception(error, "json")
        return self._sealed(json.loads(kombu_json.dumps(told)))

    def decoded_error(self, stored: Json) -> BaseException:
        """Give a recorded exception again; of the same class if that can be imported here."""
        told = kombu_json.loads(json.dumps(self.app.database.codec.open_json(stored, self._place)))
        error: BaseException = self.app.backend.exception_to_python(told)
        return error

    def _sealed(self, document: Json) -> Json:
        codec = self.app.database.codec
        return codec.seal_json(document, self._place) if codec else document

    @property
    def _place(self) -> str:
        return place_of(self.run.key.job_id, "result")

    # -- writing

    def put(self, step: NewStep, *, error: BaseException | None = None) -> None:
        """Write a step at once; waits while Postgres is away.

        Raises:
            JobCancelled: The step was about to begin, and the job is cancelled.
        """
        line = None if error is None else self.error_line(error)

        def write(_: bool) -> str | None:
            with self.app.database.connection() as connection:
                return records.put(connection, self.run.key, step, attempt=self.attempt, error=line)

        status = patiently(write, event="DurableStep", job_id=self.run.task_id)
        self._note_written(step, line)
        if step.status is JobStatus.PROCESSING and status == JobStatus.CANCELLED:
            raise JobCancelled(f"Job {self.run.task_id} was cancelled.")

    def put_on(self, connection: DriverConnection, step: NewStep) -> None:
        """Write a step in the caller's transaction."""
        records.put(connection, self.run.key, step, attempt=self.attempt)

    def _note_written(self, step: NewStep, error: str | None) -> None:
        """Know it as if it had been read: a call may be made twice by its key, and undo steps are looked for."""
        self._load()[step.call] = Record(
            detail_id=step.detail_id,
            kind=step.kind,
            call=step.call,
            status=step.status,
            result=step.result,
            metadata=step.metadata,
            error=error,
        )

    def error_line(self, error: BaseException) -> str:
        line, codec = cut(error_line(error), _MOST_OF_ERROR), self.app.database.codec
        return seal_error(codec, line, self.run.key.job_id) if codec else line


#: What the handler does not ask for.
_OF_THE_END = frozenset({Kind.FAILURE})
