"""Celery's pool of processes, over a consumer that begins anew: what was handed to a process stays with it.

When the broker's session is lost, Celery resets its event loop, forgets what its pool has not begun, for that is
delivered again, and reconnects; when the worker stops, it forgets likewise. Six things go wrong (celery 5.7,
concurrency/asynpool.py), the last two at any time:

- `flush` drops a job that was written to a process and is not accepted yet. The process runs it all the same, nobody
  hears how it ended, and its message is delivered again: it runs twice. Here it is kept, and its message with it
  (`broker.consume.window`).
- The loop forgets who is half through writing a job: the process waits for the rest for ever, or `flush` waits for the
  process. Here it is written on when the loop turns again.
- The loop forgets who is half through reading a result: the rest is read as the beginning of another one, and the pipe
  is out of step for good. Here it is read on.
- A process whose exit was seen, and that could not be reaped yet, has no descriptor to watch: `ValueError: file
  descriptor is None` ends the worker. Here it is watched anew, or reaped.
- A hard time limit is watched only when the soft one is over: one that is the shorter, as a caller may give it, was not
  kept. Here it is, and the soft one is none.
- A process closes its descriptors a moment before it can be reaped, and takes the longer the busier the machine is and
  the more memory it has. Who looks in that moment sees nobody gone, and looks again five seconds later: so long a pool
  was one process short after a hard time limit. Here it is looked at again in a moment.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import Any

from billiard.pool import TERMINATE
from celery.concurrency import asynpool
from celery.worker import state as worker_state

from jobbridge.core.keys import JobKey

logger = logging.getLogger(__name__)

#: Seconds, at first and at most, between two looks whether a process that is ending has ended.
_FIRST_LOOK, _LONGEST_PAUSE = 0.01, 1.0

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
    _forgotten: Sequence[tuple[JobKey, int]] = ()
    on_timeout_set: Any

    def _create_timelimit_handlers(self, hub: Any) -> None:
        super()._create_timelimit_handlers(hub)
        watch: Any = self.on_timeout_set  # which that has made

        def on_timeout_set(result: Any, soft: float | None, hard: float | None) -> None:
            watch(result, None if soft and hard and hard <= soft else soft, hard)

        self.on_timeout_set = on_timeout_set

    def flush(self) -> None:
        """Forget what no process has yet: it is delivered again."""
        if self._state == TERMINATE:
            return
        forgotten: list[tuple[JobKey, int]] = []
        for job in tuple(self._cache.values()):
            if not job._accepted and (job._write_to is None or job in self.outbound_buffer):
                forgotten += _ahead_of(_request_of(job))
                job.discard()
        self._forgotten = forgotten
        self.outbound_buffer.clear()
        self.maintain_pool()
        kept = [job for job in self._cache.values() if not job.ready()]
        for job in kept:
            # Celery's consumer has forgotten its request just before: `inspect` and `revoke` look for it there.
            request = _request_of(job)
            if not job._accepted and request is not None:
                worker_state.task_reserved(request)
        processes = [job._write_to or job._scheduled_for for job in kept]
        self._busy_workers.intersection_update(
            process.inqW_fd for process in processes if process is not None and process._is_alive()
        )

    def take_forgotten(self) -> Sequence[tuple[JobKey, int]]:
        """Give job and attempt of what was started ahead, and the last `flush` has forgotten; once.

        Not the requests: what is referred to is taken for being worked on, and keeps its lease
        (`broker.consume.window`).
        """
        forgotten, self._forgotten = self._forgotten, ()
        return forgotten

    def hand_out(self, hub: Any) -> None:
        """Write what was handed over to processes that have nothing to do: now, and not when the loop has turned.

        As the loop would call it, which asks first whether they can be written to. If one cannot, its writing goes on
        in the loop; one that has just died is seen to by who watches the processes.
        """
        idle = self._all_inqueues - self._active_writes - self._busy_workers
        if self.outbound_buffer and idle and hub.consolidate_callback is not None:
            with suppress(BrokenPipeError):
                hub.consolidate_callback(list(idle))

    def register_with_event_loop(self, hub: Any) -> None:
        """Go on in this loop, also with what was half written in the one before."""
        super().register_with_event_loop(hub)
        for job in self._cache.values():
            writer = _writer_of(job)
            if writer is not None and writer in self._active_writers and job._write_to is not None:
                hub.add_writer(job._write_to.inqW_fd, writer)

    def _event_process_exit(self, hub: Any, proc: Any) -> None:
        super()._event_process_exit(hub, proc)
        self._look_again(hub, proc, _FIRST_LOOK)

    def _look_again(self, hub: Any, proc: Any, pause: float) -> None:
        """Have a process whose descriptors are closed reaped, and replaced, as soon as that can be."""
        if proc in self._pool:
            hub.call_later(pause, self._reap, hub, proc, pause)

    def _reap(self, hub: Any, proc: Any, pause: float) -> None:
        self.maintain_pool()
        self._look_again(hub, proc, min(pause * 2, _LONGEST_PAUSE))

    def _track_child_process(self, proc: Any, hub: Any) -> None:
        if getattr(proc, "_sentinel_poll", hub) is None:
            del proc._sentinel_poll  # it has exited, and could not be reaped yet
        try:
            super()._track_child_process(proc, hub)
        except (AttributeError, OSError, TypeError, ValueError) as error:  # its descriptor is closed
            logger.warning("pool.not_watched: process %s: %s", proc.pid, error)
            hub.call_soon(self.maintain_pool)


def _ahead_of(request: Any) -> Sequence[tuple[JobKey, int]]:
    begun, started = getattr(request, "_jobbridge_begun", None), getattr(request, "_jobbridge_started", None)
    return () if begun is None or started is None else [(started.key, begun.attempt)]


def _request_of(job: Any) -> Any:
    return getattr(job._accept_callback, "__self__", None)
