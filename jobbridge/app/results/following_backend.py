"""The part of the result backend that goes on from an end: what follows from it, and the chords that wait for it.

Groups that are saved, and chords that release 0.1.0 began, are kept by Celery's own key/value logic in `job_keys`.
"""

from __future__ import annotations

from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from typing import Any

from celery import states
from celery._state import get_current_task
from celery.app.task import Context
from celery.backends.base import KeyValueStoreBackend
from kombu.utils.encoding import bytes_to_str, str_to_bytes

from jobbridge.app.execute import following
from jobbridge.app.execute.chords import unsent
from jobbridge.app.execute.claim import may_end_together, record_owed_start, run_of
from jobbridge.core.chords import ChordPlace, place_in_chord
from jobbridge.core.events import Recorded
from jobbridge.core.keys import job_id_for

#: The part of a chord of release 0.1.0 that is being counted.
_chord_part: ContextVar[str | None] = ContextVar("jobbridge_chord_part", default=None)

_Base: Any = KeyValueStoreBackend  # the stubs know a third of it


class FollowingBackend(_Base):  # type: ignore[misc]  # see _Base
    """Celery's backend for keys and values over `job_keys`, with chords over `job_chords`."""

    key_t = bytes_to_str

    implements_incr = True

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        """Store the result, with what follows from the end; that of a chord's part in any case."""
        run = None if request is None else run_of(request)
        if request is not None and request.chord:
            store_result, request.ignore_result = True, False
        if run is not None and run.follows is not None and store_result and not request.ignore_result:
            record_owed_start(self.app, run)

            def end() -> Recorded | None:
                self.store_result(task_id, result, state, request=request)
                recorded: Recorded | None = request.jobbridge_end
                return recorded

            following.complete(self.app, run, request, result, end)
            run.recorded = True
            return
        super().mark_as_done(task_id, result, request, store_result, state)

    def mark_as_failure(
        self,
        task_id: str,
        exc: Any,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Store the failure, with what follows from it; that of a chord's part in any case."""
        request = None if request is None else _completed(request)
        run = None if request is None else run_of(request)
        store_result = store_result or bool(request is not None and request.chord)
        mark = partial(
            super().mark_as_failure, task_id, exc, traceback, request, store_result, call_errbacks, state
        )
        if (
            run is None
            or not (request.chain or request.chord or request.errbacks)
            or not may_end_together(self.app, run)
        ):
            mark()
            return
        record_owed_start(self.app, run)

        def call_back(errbacks: list[Any]) -> None:
            if call_errbacks:
                request.errbacks, kept = errbacks, request.errbacks
                self._call_task_errbacks(request, exc, traceback)
                request.errbacks = kept

        following.fail(self.app, run, request, mark, call_back)
        run.recorded = run.recorded or store_result

    # -- groups and chords: Celery's key/value logic over job_keys

    def get(self, key: str) -> bytes | None:
        value: bytes | None = self.app.keys.get(key)
        return value

    def set(self, key: str, value: bytes | str) -> None:
        self.app.keys.set(key, str_to_bytes(value), ttl=self.expires or None)

    def delete(self, key: str) -> None:
        if key.startswith(bytes_to_str(self.chord_keyprefix)):
            self.app.keys.delete_count(key)
        else:
            self.app.keys.delete(key)

    def incr(self, key: str) -> int:
        part = _chord_part.get()
        if part is None:
            return int(self.app.keys.incr(key))
        return int(self.app.keys.count_once(key, part, ttl=self.chord_expires or self.expires or 86400))

    def expire(self, key: str, value: int | None) -> None:
        if value:
            self.app.keys.expire(key, ttl=value)

    # -- chords: a row for each, which its parts count down by the statement that ends them

    def _apply_chord_incr(self, header_result_args: Any, body: Any, **_: Any) -> None:
        self.ensure_chords_allowed()
        chord_id, results = header_result_args
        saved = None
        if type(results) is list:  # what Celery makes of a generator is an instance of it, too
            # For workers of release 0.1.0 beside; they cannot run parts of a header that is sent as it comes.
            header = self.app.GroupResult(chord_id, results)
            encoded = str_to_bytes(self.encode({"result": header.as_tuple()}))
            saved = (self.get_key_for_group(chord_id), encoded, self._chord_result_expires or None)
        self.app.chords.open(chord_id, results, body, saved)

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        self.app.chords.set_size(group_id, chord_size)

    def add_to_chord(self, chord_id: str, result: Any) -> None:
        self.app.chords.add(chord_id)

    def on_chord_part_return(self, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Go on where the part's end did not count it: it was recorded before, or was sent by release 0.1.0."""
        if (
            not request.group
            or getattr(request, "jobbridge_chord", None)
            or self.app.chords.attend(request.group)
        ):
            return
        if self.get(self.get_key_for_group(request.group)) is None:
            return  # its body was sent
        token = _chord_part.set(str(request.id))
        try:
            super().on_chord_part_return(request, state, result, **kwargs)
        finally:
            _chord_part.reset(token)

    def repeat_chord_part(self, request: Any, state: str) -> None:
        """Go on where a worker died between the end of a chord's part and the sending of the body.

        Of release 0.1.0: between the end and the count.
        """
        if self.app.chords.attend(request.group, silence=timedelta(0)):
            return
        body_id = (request.chord or {}).get("options", {}).get("task_id")
        if body_id and self.app.jobs.find(job_id_for(body_id)) is None:
            self.on_chord_part_return(request, state, None)


def _completed(request: Any) -> Any:
    """Give what a request of another's lacks of Celery's (celery-batches': it names nobody to tell of a failure)."""
    for name in ("chain", "errbacks"):
        if not hasattr(request, name):
            setattr(request, name, None)
    return request


def unsent_request(task_id: str) -> Context | None:
    """Make the request of a chord's body that fails before it is sent."""
    signature = unsent(task_id)
    if signature is None:
        return None
    options = signature.options
    told = {name: options.get(option) for name, option in _OPTIONS.items()}
    context = Context({"id": task_id, "task": signature.task, **told})
    cause = get_current_task()
    if cause is not None:
        # Its error callbacks, as Celery has it, which gives no other way.
        context._children = cause.request.children  # type: ignore[attr-defined]  # private
    return context


_OPTIONS = {"chord": "chord", "group": "group_id", "group_index": "group_index", "root_id": "root_id"}


def place_of_unsent(request: Any) -> ChordPlace:
    """Give the place in a chord of what fails unsent."""
    if not getattr(request, "chord", None):
        return {}
    return place_in_chord(request.group, request.group_index)
