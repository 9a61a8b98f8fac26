"""The part of the result backend that waits: for one result, or for many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from celery import states
from celery.exceptions import TimeoutError
from kombu.utils.encoding import bytes_to_str

from jobbridge.app.results.following_backend import FollowingBackend
from jobbridge.app.results.listener import ResultListener, Waiting
from jobbridge.core.keys import job_id_for
from jobbridge.store.workers.awaiters import LONGEST

#: Seconds until a waiting caller asks for the second time, if nobody tells it to.
FIRST_NAP = 0.01


class WaitingBackend(FollowingBackend):
    """Waits by the listener of the app's process, and by looking."""

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> dict[str, Any]:
        """Wait for a job's end: looks at once, when it is told of, and every `interval` seconds; often at first.

        What was sent by this process while it listened, and has not been told, has not ended: there is no first look.

        Raises:
            TimeoutError: It had not ended after `timeout` seconds.
            Exception: What `on_interval` raises. `AsyncResult.get()` looks there at what comes before in a chain or
                chord: who waits is told the exception of the part that failed, and not what came of it (ChordError).
        """
        with self._naps([task_id], timeout, interval) as naps:
            has_time = timeout is None or timeout > interval
            if has_time and self.app.result_listener.will_tell(task_id):
                naps.take()
            while True:
                meta: dict[str, Any] = self.get_task_meta(task_id)
                if on_interval and meta["status"] != states.SUCCESS:
                    on_interval()  # after the question: then what this end followed from has ended, too
                if meta["status"] in states.READY_STATES:
                    return meta
                naps.take()

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Callable[[dict[str, Any]], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        max_iterations: int | None = None,
        READY_STATES: frozenset[str] = states.READY_STATES,  # noqa: N803  # Celery's
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give each result as its job ends: asks for those that it is told of, and every `interval` for all.

        Raises:
            TimeoutError: Some had not ended after `timeout` seconds.
        """
        open_ids = {bytes_to_str(task_id) for task_id in task_ids}
        for task_id in sorted(open_ids):
            cached = self._cache.get(task_id)
            if cached is not None and cached["status"] in READY_STATES:
                yield task_id, cached
                open_ids.discard(task_id)
        with self._naps(open_ids, timeout, 0.5 if interval is None else interval) as naps:
            asked = open_ids
            iterations = 0
            while open_ids:
                began_at = time.monotonic()
                keys = sorted(asked)
                found = self._mget_to_results(
                    self.mget([self.get_key_for_task(key) for key in keys]), keys, READY_STATES
                )
                self._cache.update(found)
                open_ids.difference_update(found)
                for task_id, meta in found.items():
                    if on_message is not None:
                        on_message(meta)
                    yield task_id, meta
                iterations += 1
                if not open_ids or (max_iterations and iterations >= max_iterations):
                    return
                if on_interval:
                    on_interval()
                # Many that end one after the other are asked for together.
                asked = open_ids & naps.take(at_least=2 * (time.monotonic() - began_at)) or open_ids

    @contextmanager
    def _naps(self, task_ids: Iterable[str], timeout: float | None, interval: float) -> Iterator[_Naps]:
        names = {
            name: task_id
            for task_id in task_ids
            for name in (str(job_id_for(task_id)), bytes_to_str(self.get_key_for_task(task_id)))
        }
        with self.app.result_listener.waiting_for(names) as waiting:
            yield _Naps(self.app.result_listener, waiting, names, timeout, interval)


class _Naps:
    """The pauses of one who waits.

    Args:
        names: What is told of a task, and its id.
        timeout: In seconds, from now.
        interval: In seconds.
    """

    def __init__(
        self,
        listener: ResultListener,
        waiting: Waiting,
        names: dict[str, str],
        timeout: float | None,
        interval: float,
    ) -> None:
        self._listener = listener
        self._waiting = waiting
        self._names = {name[:LONGEST]: task_id for name, task_id in names.items()}
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._interval = interval
        self._nap = FIRST_NAP

    def take(self, *, at_least: float = 0.0) -> set[str]:
        """Wait until it is time to look again.

        Args:
            at_least: Seconds.

        Returns:
            The ids of tasks that were told of; empty: look at all.

        Raises:
            TimeoutError: Time was up before.
        """
        left = float("inf") if self._deadline is None else self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("The operation timed out.")
        self._listener.listen()
        nap = self._interval if self._listener.is_reliable else min(self._nap, self._interval)
        self._nap *= 1.5
        if at_least:
            time.sleep(min(at_least, left, self._interval))
        return {self._names[name] for name in self._waiting.wait(min(nap, left))}
