"""Celery's pool of processes, over a consumer that begins anew: what was handed to a process stays with it.

When the broker's session is lost, Celery resets its event loop, forgets what its pool has not begun, for that is
delivered again, and reconnects; when the worker stops, it forgets likewise. Four things go wrong there (celery 5.7,
concurrency/asynpool.py):

- `flush` drops a job that was written to a process and is not accepted yet. The process runs it all the same, nobody
  hears how it ended, and its message is delivered again: it runs twice. Here it is kept, and its message with it
  (`broker.consume.window`).
- The loop forgets who is half through writing a job: the process waits for the rest for ever, or `flush` waits for the
  process. Here it is written on when the loop turns again.
- The loop forgets who is half through reading a result: the rest is read as the beginning of another one, and the pipe
  is out of step for good. Here it is read on.
- A process whose exit was seen, and that could not be reaped yet, has no descriptor to watch: `ValueError: file
  descriptor is None` ends the worker. Here it is watched anew, or reaped.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Generator
from typing import Any

from billiard.pool import TERMINATE
from celery.concurrency import asynpool
from celery.worker import state as worker_state

logger = logging.getLogger(__name__)

_ResultHandler: Any = asynpool.ResultHandler  # untyped
_AsynPool: Any = asynpool.AsynPool
_writer_of: Any = vars(asynpool)["_get_job_writer"]


class ResultHandler(_ResultHandler):  # type: ignore[misc]  # untyped base
    """Reads results, each to its end, whatever becomes of the loop meanwhile."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        #: By descriptor: of which process, and who reads.
        self._reading: dict[int, tuple[weakref.ref[Any], Generator[None]]] = {}

    def _recv_message(self, add_reader: Any, fd: int, callback: Any) -> Generator[None]:
        process = self.fileno_to_outq[fd]
        reading = self._unfinished(fd, process)
        if reading is None:
            reading = super()._recv_message(add_reader, fd, callback)
            self._reading[fd] = weakref.ref(process), reading
        return reading

    def _finish_partial_read(self, fd: int, proc: Any) -> bool:
        reading = self._unfinished(fd, proc)
        if reading is not None and self._hub is not None and fd not in self._hub.readers:
            self._hub.readers[fd] = (
                reading,
                (),
            )  # where Celery looks for it: the worker stops without a session
        return bool(super()._finish_partial_read(fd, proc))

    def _unfinished(self, fd: int, process: Any) -> Generator[None] | None:
        whose, reading = self._reading.get(fd, (None, None))
        is_open = whose is not None and whose() is process and reading is not None
        return reading if is_open and reading.gi_frame is not None else None  # type: ignore[union-attr]


class Pool(_AsynPool):  # type: ignore[misc]  # untyped base
    """Celery's, which keeps what was handed to a process."""

    ResultHandler = ResultHandler

    def flush(self) -> None:
        """Forget what no process has yet: it is delivered again."""
        if self._state == TERMINATE:
            return
        for job in tuple(self._cache.values()):
            if not job._accepted and (job._write_to is None or job in self.outbound_buffer):
                job.discard()
        self.outbound_buffer.clear()
        self.maintain_pool()
        kept = [job for job in self._cache.values() if not job.ready()]
        for job in kept:
            # Celery's consumer has forgotten its request just before: `inspect` and `revoke` look for it there.
            request = getattr(job._accept_callback, "__self__", None)
            if not job._accepted and request is not None:
                worker_state.task_reserved(request)
        processes = [job._write_to or job._scheduled_for for job in kept]
        self._busy_workers.intersection_update(
            process.inqW_fd for process in processes if process is not None and process._is_alive()
        )

    def register_with_event_loop(self, hub: Any) -> None:
        """Go on in this loop, also with what was half written in the one before."""
        super().register_with_event_loop(hub)
        for job in self._cache.values():
            writer = _writer_of(job)
            if writer is not None and writer in self._active_writers and job._write_to is not None:
                hub.add_writer(job._write_to.inqW_fd, writer)

    def _track_child_process(self, proc: Any, hub: Any) -> None:
        if getattr(proc, "_sentinel_poll", hub) is None:
            del proc._sentinel_poll  # it has exited, and could not be reaped yet
        try:
            super()._track_child_process(proc, hub)
        except (AttributeError, OSError, TypeError, ValueError) as error:  # its descriptor is closed
            logger.warning("pool.not_watched: process %s: %s", proc.pid, error)
            hub.call_soon(self.maintain_pool)
