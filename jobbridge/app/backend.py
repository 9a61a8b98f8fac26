"""The result backend: results live in the job's row.

A finished job costs one write, because storing its result and closing its row are the same event. Groups and
chords use the table `job_keys` through Celery's own key/value logic.

The row keeps a readable `result` (JSON). What JSON cannot carry, or what belongs to the result besides the value
(children), goes into `result_payload` in the backend's serializer.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from celery import states
from celery.app.task import Context
from kombu.utils import json as kombu_json
from kombu.utils.encoding import str_to_bytes

from jobbridge.app.errors import TooLarge
from jobbridge.app.execute import carried
from jobbridge.app.execute.claim import (
    Run,
    current_run,
    identify,
    is_untracked,
    record,
    record_end,
    record_owed_start,
    run_of,
)
from jobbridge.app.execute.together import together
from jobbridge.app.paced import REPORTS, STATE
from jobbridge.app.results.following_backend import place_of_unsent, unsent_request
from jobbridge.app.results.forms import as_json, cut_exception, error_line, exception_of, revoked
from jobbridge.app.results.waiting_backend import WaitingBackend
from jobbridge.app.urls import BROKER_SCHEME, same_database
from jobbridge.app.worker.batches import context_of
from jobbridge.core.events import (
    AttemptFailed,
    Cancelled,
    Completed,
    Expired,
    Failed,
    JobEvent,
    Progressed,
    Recorded,
)
from jobbridge.core.keys import Engine, JobKey, job_id_for
from jobbridge.core.shown import cut
from jobbridge.core.status import WAITING, JobStatus
from jobbridge.errors import ConfigurationError
from jobbridge.store.jobs.queries import StoredResult

logger = logging.getLogger(__name__)

#: The type of a job that failed before it was sent (a chord's body) and whose task's name Celery does not tell.
UNSENT = "unsent"

#: On a request: a state was stored for its task beside the row.
_HAS_STATE = "jobbridge_has_state"

#: How Celery names the states of a job.
CELERY_STATES = {
    JobStatus.PENDING: states.PENDING,
    JobStatus.QUEUED: states.PENDING,
    JobStatus.SCHEDULED: states.PENDING,
    JobStatus.PROCESSING: states.PENDING,  # that it has started is stored where `track_started` says so
    JobStatus.RETRYING: states.RETRY,
    JobStatus.WAITING: states.PENDING,
    JobStatus.COMPLETED: states.SUCCESS,
    JobStatus.FAILED: states.FAILURE,
    JobStatus.CANCELLED: states.REVOKED,
    JobStatus.EXPIRED: states.REVOKED,
    JobStatus.SKIPPED: states.REVOKED,
}


class JobBackend(WaitingBackend):
    """Celery's result backend over `jobs` and `job_keys`, in the database of the app.

    Raises:
        ConfigurationError: The app is none of ours, so its tasks have no rows; or the URL names another database.
    """

    supports_native_join = True
    supports_autoexpire = True  # rows go by the pruner's retention, not by celery.backend_cleanup
    persistent = True

    def as_uri(self, include_password: bool = False) -> str:
        return f"{BROKER_SCHEME}://"

    def __init__(self, app: Any, *args: Any, url: str | None = None, **options: Any) -> None:
        if not getattr(app, "is_jobbridge", False):
            raise ConfigurationError(
                f"The result backend {self.as_uri()} needs jobbridge's app, and {app.main!r} is a plain Celery app.",
                hint="Write `from jobbridge import Celery` instead of `from celery import Celery`.",
            )
        place = (url or "").partition("://")[2]
        if place and not same_database(f"postgresql://{place}", app.database.target):
            raise ConfigurationError(
                "The result backend's URL names another database than the one that has the jobs.",
                hint=f"A result is part of its job's row: set result_backend to {self.as_uri()}.",
            )
        super().__init__(app, *args, url=url, **options)

    # -- writing

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **_: Any,
    ) -> Any:
        if (
            state == states.STARTED
        ):  # the claim has written that it runs; this is told where `track_started` says so
            self._store_custom_state(task_id, result, state, traceback, request)
            return result
        if request is not None and is_untracked(request):
            # The next attempt may have ended before this one has said that it retries; there is no row to know that.
            if state != states.RETRY:
                self._store_custom_state(task_id, result, state, traceback, request)
            return result
        request = request if request is not None else unsent_request(task_id)
        run = self._run_for(task_id, request)
        if state in states.READY_STATES or state == states.RETRY:
            # Not in the end's own transaction, which may hold the row: what waits there tells what is over.
            REPORTS.close(task_id, writes=together() is None)
            record_owed_start(self.app, run)
        event = self._event(run, result, state, traceback, request)
        if event is None:
            self._report(run, result, state, traceback, request)
        elif (recorded := self._write(run, event, request)) is not None:
            if not recorded.applied and recorded.status is None:  # there is no such job
                self._store_custom_state(task_id, result, state, traceback, request)
            if state == states.RETRY and getattr(request, _HAS_STATE, False):
                self.delete(self.get_key_for_task(task_id))  # what it said of itself before is over
            run.recorded = state in states.READY_STATES
            if request is not None:
                request.jobbridge_chord = recorded.chord  # it was counted
                request.jobbridge_end = recorded
        return result

    def _write(self, run: Run, event: JobEvent, request: Any) -> Recorded | None:
        if run.is_carried and carried.put(run, event, self.app.tasks[request.task]):
            return Recorded(applied=True, status=None, attempt=run.attempt or 0)
        # Only where the attempt ran: a worker's own loop, which has to reconnect, does not wait for Postgres.
        is_end = run.attempt is not None and isinstance(event, Completed | Failed)
        return record_end(self.app, event) if is_end else record(self.app, event)

    def _run_for(self, task_id: str, request: Any) -> Run:
        run = run_of(request) if request is not None else None
        if run is not None and run.task_id == task_id:
            return run
        own = Context({"id": task_id})
        if request is not None and getattr(request, "id", None) == task_id:
            # A request of another's (celery-batches) has the message's headers, and little of Celery's request.
            own = request if hasattr(request, "retries") else context_of(request)
        identified = identify(own)
        assert identified is not None  # a request with an id always names a job unless it is eager
        if identified.delivery is None:
            stored = self.app.jobs.find(identified.key.job_id)
            if stored is not None:
                identified.key = stored.key
            elif (cause := current_run(self.app)) is not None:
                identified.key = JobKey(tenant=cause.key.tenant, job_id=identified.key.job_id)
        return identified

    def _event(self, run: Run, result: Any, state: str, traceback: Any, request: Any) -> JobEvent | None:
        limit = self.app.settings.payload_limit
        text = None if traceback is None else cut(str(traceback), limit)
        readable, payload, content_type = self._encoded(result, state, text, request)
        if state == states.SUCCESS and run.attempt is not None:
            return Completed(
                key=run.key,
                attempt=run.attempt,
                is_part=bool(getattr(request, "chord", None)) or not isinstance(request, Context),
                result=readable,
                result_payload=payload,
                result_type=content_type,
            )
        if state == states.FAILURE:
            return Failed(
                key=run.key,
                attempt=run.attempt,
                error=cut(error_line(result), limit),
                traceback=text,
                result=readable,
                result_payload=payload,
                result_type=content_type,
                delivery=run.delivery,
                type=getattr(request, "task", None) or UNSENT,
                engine=self._engine_of(request),
                task_id=run.task_id,
                tells_chain=request is not None,
                **self._origin(run),
                **place_of_unsent(request),
            )
        if state == states.RETRY and run.attempt is not None:
            line = cut(error_line(result), limit)
            return AttemptFailed(key=run.key, attempt=run.attempt, error=line, traceback=text)
        if state == states.REVOKED:
            reason = error_line(result)
            return Expired(key=run.key) if "expired" in reason else Cancelled(key=run.key, reason=reason)
        return None

    def _engine_of(self, request: Any) -> Engine:
        """Give the engine that a job would have gone to which fails unsent."""
        told: str | None = getattr(request, "engine", None)
        task = self.app._tasks.get(getattr(request, "task", None))
        return Engine.parse(told) if told else Engine.named_by(task) or self.app.default_engine

    def _origin(self, run: Run) -> dict[str, Any]:
        """Tell with whom a job belongs that fails unsent, since a link before it in its chain has failed."""
        cause = current_run(self.app)
        if cause is None or cause.task_id == run.task_id:
            return {}
        root_id = self.app.current_worker_task.request.root_id or cause.task_id
        return {"root_id": job_id_for(root_id), "parent_id": cause.key.job_id}

    def _encoded(
        self, result: Any, state: str, traceback: Any, request: Any
    ) -> tuple[Any, bytes | None, str | None]:
        """Give the forms that are kept, if they are not too large; an exception is cut then: there is no other."""
        *forms, size = self._forms(result, state, traceback, request)
        if size > self.app.settings.payload_limit:
            *forms, _ = self._forms(self._cut(result, size, state, request), state, traceback, request)
        return tuple(forms)

    def _forms(
        self, result: Any, state: str, traceback: Any, request: Any
    ) -> tuple[Any, bytes | None, str | None, int]:
        """Give the readable form, the whole meta in the serializer's form where that is not enough, and the size."""
        readable, is_complete, size = as_json(result)
        children = self.current_task_children(request)
        is_extended = request is not None and self.app.conf.find_value_for_key("extended", "result")
        if is_complete and not children and not is_extended and self.serializer == "json":
            return readable, None, None, size
        if size > self.app.settings.payload_limit and state not in states.EXCEPTION_STATES:
            return readable, None, None, size  # is refused anyway
        meta = self._get_result_meta(result=result, state=state, traceback=traceback, request=request)
        payload = str_to_bytes(self.encode(meta))
        return readable, payload, self.content_type, max(size, len(payload))

    def _cut(self, result: Any, size: int, state: str, request: Any) -> Any:
        """Give what is kept of what is too large.

        Raises:
            TooLarge: It is no exception.
        """
        limit = self.app.settings.payload_limit
        if state in states.EXCEPTION_STATES:
            return cut_exception(result, limit)
        what = "result" if state == states.SUCCESS else f"state {state!r}"
        raise TooLarge.of(f"The {what} of {getattr(request, 'task', None)!r}", size=size, limit=limit)

    def _store_custom_state(
        self, task_id: str, result: Any, state: str, traceback: Any, request: Any
    ) -> None:
        self.set(self.get_key_for_task(task_id), self._encoded_state(result, state, traceback, request))

    def _encoded_state(self, result: Any, state: str, traceback: Any, request: Any) -> Any:
        if request is not None:
            setattr(request, _HAS_STATE, True)

        def encoded(kept: Any) -> Any:
            return self.encode(
                self._get_result_meta(result=kept, state=state, traceback=traceback, request=request)
            )

        whole = encoded(result)
        if len(whole) <= self.app.settings.payload_limit:
            return whole
        traceback = None if traceback is None else cut(str(traceback), self.app.settings.payload_limit)
        return encoded(self._cut(result, len(whole), state, request))

    def _report(self, run: Run, meta: Any, state: str, traceback: Any, request: Any) -> None:
        # Now, and not by the timer: the task may change what it has said.
        encoded, progress = self._encoded_state(meta, state, traceback, request), self._progress_in(run, meta)

        def write() -> None:
            self.set(self.get_key_for_task(run.task_id), encoded)
            if progress is not None:
                record(self.app, progress)

        if run.attempt is None or together() is not None:
            write()
        else:
            REPORTS.put(run.task_id, STATE, write, kind=state)

    def _progress_in(self, run: Run, meta: Any) -> Progressed | None:
        # `update_state(state="PROGRESS", meta={"current": 3, "total": 10})` is Celery's custom for progress.
        if run.attempt is None or not isinstance(meta, dict):
            return None
        current, total = meta.get("current"), meta.get("total")
        if isinstance(current, int | float) and isinstance(total, int | float) and total > 0:
            share = max(0.0, min(100.0, 100.0 * current / total))
            return Progressed(key=run.key, attempt=run.attempt, progress=share)
        return None

    # -- reading

    def _get_task_meta_for(self, task_id: str) -> dict[str, Any]:
        REPORTS.flush(task_id)  # a task may read what it has just said
        stored = self.app.jobs.results_of([job_id_for(task_id)])
        return self._meta(task_id, stored[0] if stored and not stored[0].is_hidden else None)

    def meta_of(self, stored: StoredResult) -> dict[str, Any]:
        """Give what there is to know of a job that has ended, also where its result is ignored."""
        return self._meta(stored.task_id, stored)

    def _meta(self, task_id: str, stored: StoredResult | None) -> dict[str, Any]:
        pending = {"status": states.PENDING, "result": None}
        if stored is None:
            return self._custom_state(task_id) or pending
        state = CELERY_STATES[stored.status]
        if not stored.status.is_final:
            custom = self._custom_state(task_id)
            is_over = stored.status in WAITING and custom and custom["status"] == states.STARTED
            if custom is not None and not is_over:
                return custom
            if state == states.PENDING:
                return pending
        if stored.result_payload is not None and state in states.READY_STATES:
            return dict(self.decode_result(bytes(stored.result_payload)))
        done_at = stored.completed_at.isoformat() if stored.completed_at else None
        return dict(
            self.meta_from_decoded({**self._readable_meta(task_id, stored, state), "date_done": done_at})
        )

    def _readable_result(self, stored: StoredResult, state: str) -> Any:
        if state in states.EXCEPTION_STATES and stored.result is None:
            line = stored.error or stored.status.value
            return revoked(line) if state == states.REVOKED else exception_of(line)
        return kombu_json.loads(json.dumps(stored.result))

    def _custom_state(self, task_id: str) -> dict[str, Any] | None:
        stored = self.get(self.get_key_for_task(task_id))
        return dict(self.decode_result(stored)) if stored else None

    def task_result_exists(self, task_id: str) -> bool:
        return (
            bool(self.app.jobs.results_of([job_id_for(task_id)])) or self._custom_state(task_id) is not None
        )

    def mget(self, keys: list[str]) -> list[bytes | None]:
        """Give the encoded meta of many tasks in one query (Celery's native join)."""
        task_ids = [self._strip_prefix(key) for key in keys]
        found = {
            row.job_id: row
            for row in self.app.jobs.results_of([job_id_for(task_id) for task_id in task_ids])
            if not row.is_hidden
        }
        missing = [
            task_id for task_id in task_ids if job_id_for(task_id) not in found
        ]  # jobs without rows, perhaps
        others = (
            self.app.keys.mget([self.get_key_for_task(task_id) for task_id in missing]) if missing else {}
        )
        return [
            self._encoded_meta(task_id, found.get(job_id_for(task_id)))
            or others.get(self.get_key_for_task(task_id))
            for task_id in task_ids
        ]

    def _encoded_meta(self, task_id: str, stored: StoredResult | None) -> bytes | None:
        if stored is None or not stored.status.is_final:
            return None
        if stored.result_payload is not None:
            return bytes(stored.result_payload)
        state = CELERY_STATES[stored.status]
        return str_to_bytes(self.encode(self._readable_meta(task_id, stored, state)))

    def _readable_meta(self, task_id: str, stored: StoredResult, state: str) -> dict[str, Any]:
        return {
            "status": state,
            "result": self._readable_result(stored, state),
            "traceback": stored.traceback,
            "children": [],
            "task_id": task_id,
        }

    def _forget(self, task_id: str) -> None:
        self.app.jobs.forget_result(job_id_for(task_id))
        self.delete(self.get_key_for_task(task_id))
