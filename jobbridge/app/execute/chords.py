"""Chords: from a header's parts to its body.

A part is counted by the statement that ends it, whoever writes that and whatever the end is. Who counted the last one
sends the body: with the results, or, if a part did not complete, as a failure that its error callbacks are told of.
Should that process die first, the message of the last part comes again, and the sweep comes by: the row of the chord
is there until the body is sent.

| | dies between | then |
|---|---|---|
| a part's end and its count | cannot be: one statement | |
| the last count and the body | the row stays, due | a redelivered part, or the sweep, sends the body |
| the body and the row's deletion | cannot be: one transaction | |
| a link's end and the next link's row | cannot be: one transaction (see `following`) | |

A broker of others has no part in the transaction: there the body is sent before the row goes. Who dies between leaves
the row, and whoever finds it finds the body's row, too.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from celery import states
from celery.canvas import Signature, maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult
from kombu import serialization
from kombu.utils.encoding import str_to_bytes

from jobbridge.app.errors import sending
from jobbridge.app.execute import tenancy
from jobbridge.app.execute.claim import current_run
from jobbridge.app.execute.together import Together, in_one_transaction, is_away, outside_of_tasks
from jobbridge.codec.rows import open_result
from jobbridge.codec.sealing import key_of
from jobbridge.core.chords import mark_of_replaced, replaced_by_mark
from jobbridge.core.keys import SYSTEM_TENANT, job_id_for
from jobbridge.store.batches import rows as batch_rows
from jobbridge.store.batches.progress import BATCH
from jobbridge.store.jobs import chords as rows
from jobbridge.store.jobs.chords import ChordRow
from jobbridge.store.jobs.keys import seal_key, set_key
from jobbridge.store.jobs.rows import StoredResult

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

logger = logging.getLogger(__name__)

#: The sweep leaves to whoever acted a moment ago what follows from it; and it counts anew where nothing was heard.
NEGLECT = timedelta(seconds=2)
SILENCE = timedelta(minutes=1)
_TRIES = 3

#: Signatures of tasks that may fail unsent now, by task id.
_unsent: ContextVar[Mapping[str, Any] | None] = ContextVar("jobbridge_unsent", default=None)


def unsent(task_id: str) -> Any:
    """Give the signature of a task that fails before it is sent, if it is of a chord's body."""
    return (_unsent.get() or {}).get(task_id)


class Chords:
    """The chords of an app.

    Args:
        app: Whose jobs.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    # -- while the header is sent

    @sending()
    def open(
        self, chord_id: str, results: Any, body: Any, saved: tuple[str, bytes, float | None] | None
    ) -> None:
        """Make ready for the parts.

        Args:
            chord_id: The header's group id.
            results: Of the header; a list, or what gives them one by one as they are sent.
            body: The signature.
            saved: Key, value and time to live of what releases before look for.
        """
        serializer = self._app.conf.task_serializer
        joins = self._app.batches.joined()
        mark = {} if joins is None else {BATCH: str(joins)}
        content_type, encoding, data = serialization.dumps({**body, **mark}, serializer=serializer)
        expires, codec = self._app.backend.chord_expires, self._app.database.codec
        stored = str_to_bytes(data)
        if codec:
            stored = codec.seal(stored, _place(chord_id))
        with self._app.database.transaction(self._app.caller_connection) as connection:
            rows.open_chord(
                connection,
                chord_id,
                body=stored,
                body_type=f"{content_type} {encoding}",
                header=_nesting(results),
                lifetime=timedelta(seconds=expires) if expires else None,
            )
            if joins is not None:  # which waits for the body
                batch_rows.mark_chord(connection, chord_id, joins)
            if saved is not None:
                key, value, ttl = saved
                set_key(connection, key, seal_key(codec, key, value), ttl=ttl)

    @sending()
    def set_size(self, chord_id: str, size: int) -> None:
        """Say how many parts there are, before the last one is sent."""
        with self._app.database.transaction(self._app.caller_connection) as connection:
            rows.set_size(connection, chord_id, size)

    @sending()
    def add(self, chord_id: str) -> None:
        """Wait for one more part, which is sent then."""
        with self._app.database.transaction(self._app.caller_connection) as connection:
            rows.add_part(connection, chord_id)

    # -- going on

    def attend(self, chord_id: str, *, silence: timedelta | None = None) -> bool:
        """Send the body, if nothing is waited for any more. Safe to call at any time, from any process.

        Trouble is logged: the sweep comes by again.

        Args:
            chord_id: Which.
            silence: Count the parts anew by their rows, if nothing was heard for so long.

        Returns:
            Whether there is such a chord, or was until now.
        """
        for left in reversed(range(_TRIES)):
            try:
                return self._attend(chord_id, silence)
            except Exception as error:  # a job has just ended here, which must not suffer from it
                if not left or not is_away(error):
                    logger.warning("chord.not_attended", extra={"chord": chord_id, "error": repr(error)})
                    return True
        return True

    def sweep(self, stopped: threading.Event | None = None) -> int:
        """See to chords in which something was left undone; gives their number. Any number of processes may do so."""
        with self._app.database.connection() as connection:
            found = rows.left(connection, neglect=NEGLECT, silence=SILENCE)
        attended = 0
        for chord_id, is_due in found:
            if stopped is not None and stopped.is_set():
                break
            try:
                attended += self._attend(chord_id, None if is_due else SILENCE) and is_due
            except Exception as error:
                logger.warning("chord.not_attended", extra={"chord": chord_id, "error": repr(error)})
        return attended

    def _attend(self, chord_id: str, silence: timedelta | None) -> bool:
        is_elsewhere = not self._app.shares_database_with_broker
        apart = self._app.enqueue_apart() if is_elsewhere else nullcontext()
        with in_one_transaction(self._app) as opened, apart:
            connection = opened.connection
            if silence is not None:
                rows.recount(connection, chord_id, older_than=silence)
            row = rows.lock(connection, chord_id)
            if row is None:
                return False
            replaced = replaced_by_mark(chord_id)
            if replaced is not None:
                self._attend_replaced(opened, chord_id, row, replaced)
            elif row.is_due or row.is_forgotten:
                backend = self._app.backend
                keys = [backend.get_key_for_group(chord_id), backend.get_key_for_chord(chord_id)]
                rows.close(connection, chord_id, keys)
                body = self._body(row, chord_id)
                # A worker of the release before may have counted all parts, and sent it.
                if (silence is None and not is_elsewhere) or not self._was_sent(opened, body):
                    self._go_on(opened, chord_id, row, body)
            return True

    def _attend_replaced(self, opened: Together, chord_id: str, row: ChordRow, job_id: UUID) -> None:
        """Fail a job that waits for the canvas which replaced it, if that does not go on."""
        waits = rows.waits_for_canvas(opened.connection, chord_id, job_id)
        if waits and row.broken_by is None:
            return
        rows.close(opened.connection, chord_id, [])
        if waits:
            with self._as_its_part(chord_id, rows.results_of(opened.connection, [job_id])):
                try:
                    self._values(opened, row, [])
                except ChordError as error:
                    self._fail(chord_id, self._body(row, chord_id), error)

    def close_replaced(self, task_id: str) -> None:
        """A job that replaced itself waits no more: the task with its id is being sent, in the caller's transaction."""
        with self._app.database.transaction(self._app.caller_connection) as connection:
            rows.close(connection, mark_of_replaced(job_id_for(task_id)), [])

    def _body(self, row: ChordRow, chord_id: str) -> Any:
        content_type, encoding = row.body_type.split()
        is_sealed = key_of(row.body) is not None
        body = self._app.database.codec.open(row.body, _place(chord_id)) if is_sealed else row.body
        decoded = serialization.loads(
            body, content_type, encoding, accept=self._app.backend.accept | {content_type}
        )
        batch = decoded.pop(BATCH, None)  # a canvas is made anew of what it knows
        signature: Any = maybe_signature(decoded, app=self._app)
        signature.jobbridge_batch = batch
        return signature

    def _was_sent(self, opened: Together, body: Any) -> bool:
        return bool(rows.results_of(opened.connection, [job_id_for(name) for name in _members(body)]))

    def _go_on(self, opened: Together, chord_id: str, row: ChordRow, body: Any) -> None:
        parts = rows.parts(opened.connection, chord_id)
        with self._as_its_part(chord_id, parts):
            try:
                with opened.connection.transaction():
                    values = self._values(opened, row, parts)
                    with self._app.batches.joining(body.jobbridge_batch):
                        body.delay(values)
            except Exception as error:
                if is_away(error):
                    raise
                self._fail(chord_id, body, error)

    @contextmanager
    def _as_its_part(self, chord_id: str, parts: list[StoredResult]) -> Iterator[None]:
        """Send as the part that runs here; as nobody in particular, for the parts' tenant, if none does."""
        task = self._app.current_worker_task
        if current_run(self._app) is not None and task.request.group == chord_id:
            yield
            return
        with ExitStack() as entered:
            entered.enter_context(outside_of_tasks())
            if parts and parts[0].key.tenant != SYSTEM_TENANT:
                entered.enter_context(tenancy.tenant_context(parts[0].key.tenant))
            yield

    def _values(self, opened: Together, row: ChordRow, parts: list[StoredResult]) -> list[Any]:
        """Give the results as the body takes them.

        Raises:
            ChordError: A part did not complete, or its result is gone.
        """
        if row.is_forgotten and not row.is_due:
            raise ChordError("It waited for longer than result_chord_expires")
        if row.broken_by is not None:
            for link in rows.results_of(opened.connection, [row.broken_by]):
                self._value(link)
            raise ChordError(f"Dependency {row.broken_by} ended, and what was to follow it was not sent")
        if row.header is None:
            values = [self._value(part) for part in parts]
            if row.size is not None and len(values) < row.size:
                raise ChordError(f"{row.size - len(values)} of {row.size} results no longer exist")
            return values
        nested = json.loads(row.header)
        ids = {task_id: job_id_for(task_id) for task_id in _flat(nested)}
        found = {part.job_id: part for part in rows.results_of(opened.connection, list(ids.values()))}
        if missing := [task_id for task_id, job_id in ids.items() if job_id not in found]:
            raise ChordError(f"The result of {missing[0]} no longer exists")
        values_of = {task_id: self._value(found[job_id]) for task_id, job_id in ids.items()}
        return [_filled(each, values_of) for each in nested]

    def _value(self, part: StoredResult) -> Any:
        meta = self._app.backend.meta_of(open_result(self._app.database.codec, part))
        if meta["status"] in states.PROPAGATE_STATES:
            error = ChordError(f"Dependency {part.task_id} raised {meta['result']!r}")
            if isinstance(meta["result"], Exception):
                error.__cause__ = meta["result"]
            raise error
        return meta["result"]

    def _fail(self, chord_id: str, body: Any, error: Exception) -> None:
        logger.error("chord.failed", extra={"chord": chord_id, "error": str(error)}, exc_info=error)
        if not isinstance(error, ChordError):
            callback_error = ChordError(f"Callback error: {error!r}")
            callback_error.__cause__ = error
            error = callback_error
        token = _unsent.set(_members(body))
        try:
            raise error
        except ChordError:
            self._app.backend.chord_error_from_stack(body, error)
        finally:
            _unsent.reset(token)


def _place(chord_id: str) -> str:
    return f"{chord_id}/chord"


def _members(body: Any) -> dict[str, Signature]:
    """Give the tasks by which a body ends, by id: itself, or the members of a group, or the last of a chain."""
    kind = body.get("subtask_type")
    tasks = body["kwargs"].get("tasks") or []
    if kind == "chord":
        return _members(body["kwargs"]["body"])
    if kind == "group":
        return {name: member for task in tasks for name, member in _members(task).items()}
    if kind == "chain" and tasks:
        return _members(tasks[-1])
    task_id = body["options"].get("task_id")
    return {task_id: body} if task_id else {}


def _nesting(results: Any) -> bytes | None:
    """Give the ids in the results' form, as JSON, if that is no plain list."""
    if type(results) is not list or not any(isinstance(each, GroupResult) for each in results):
        return None
    return json.dumps([_ids(each) for each in results]).encode()


def _ids(result: Any) -> Any:
    return [_ids(each) for each in result.results or ()] if isinstance(result, GroupResult) else result.id


def _flat(nested: Any) -> Iterator[str]:
    if isinstance(nested, str):
        yield nested
        return
    for each in nested:
        yield from _flat(each)


def _filled(nested: Any, values: Mapping[str, Any]) -> Any:
    return values[nested] if isinstance(nested, str) else [_filled(each, values) for each in nested]
