"""What counts as a loop that hangs, and what does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from celery.bootsteps import CLOSE, RUN  # type: ignore[attr-defined]  # not in the stubs
from celery.worker import state as worker_state

from jobbridge.app.worker.watchdog import Watchdog
from tests.support import wait_until

STUCK_AFTER = timedelta(seconds=0.3)
FOR_EVER = timedelta(days=1)


class FakeLoop:
    """Celery's consumer, as far as a watchdog knows it: calls at once, or never."""

    def __init__(self) -> None:
        self.connection: object | None = object()
        self.turns = True

    def call_soon(self, function: Callable[[], None]) -> None:
        if self.turns:
            function()


class FakeRequest:
    """Of a task that runs, in that process; None: nobody has said in which."""

    def __init__(self, pid: int | None) -> None:
        self.worker_pid = pid


@pytest.fixture
def worker() -> Any:
    return SimpleNamespace(consumer=FakeLoop(), blueprint=SimpleNamespace(state=RUN), pool=object())


@pytest.fixture
def watchdog(worker: Any) -> Watchdog:
    watchdog = Watchdog(STUCK_AFTER)
    watchdog.begin(worker)
    return watchdog


def _is_let_live(watchdog: Watchdog, *, at_most: timedelta = FOR_EVER) -> bool:
    """Whether it has nothing to say for three times as long as a loop may hang."""
    until = time.monotonic() + 3 * STUCK_AFTER.total_seconds()
    troubles = []
    wait_until(lambda: troubles.append(watchdog.trouble(at_most=at_most)) or time.monotonic() > until)
    return set(troubles) == {None}


def test_a_loop_that_turns_is_let_live(watchdog: Watchdog) -> None:
    assert _is_let_live(watchdog)


def test_a_loop_that_does_not_answer_hangs(watchdog: Watchdog, worker: Any) -> None:
    worker.consumer.turns = False

    assert "main loop has not turned" in wait_until(lambda: watchdog.trouble(at_most=FOR_EVER) or "")


def test_a_loop_that_answers_late_is_let_live(watchdog: Watchdog, worker: Any) -> None:
    worker.consumer.turns = False
    assert watchdog.trouble(at_most=FOR_EVER) is None
    worker.consumer.turns = True

    assert _is_let_live(watchdog)


def test_another_loop_is_watched_until_it_ends(watchdog: Watchdog) -> None:
    watchdog.watch("temporal", lambda _: None)
    assert "temporal loop" in wait_until(lambda: watchdog.trouble(at_most=FOR_EVER) or "")

    watchdog.unwatch("temporal")

    assert _is_let_live(watchdog)


def test_a_worker_that_waits_for_its_broker_is_let_live(watchdog: Watchdog, worker: Any) -> None:
    worker.consumer.turns, worker.consumer.connection = False, None

    assert _is_let_live(watchdog)


def test_silence_counts_no_longer_than_postgres_was_in_reach(watchdog: Watchdog, worker: Any) -> None:
    worker.consumer.turns = False

    assert _is_let_live(watchdog, at_most=STUCK_AFTER / 2)


def test_a_shutdown_in_which_nothing_runs_and_nothing_moves_hangs(watchdog: Watchdog, worker: Any) -> None:
    worker.consumer.turns, worker.blueprint.state = False, CLOSE

    assert wait_until(lambda: watchdog.trouble(at_most=FOR_EVER))


@pytest.mark.parametrize(("pid", "is_let_live"), [(None, True), (2**22 + 1, False)])
def test_a_shutdown_waits_for_a_task_whose_process_lives(
    pid: int | None, is_let_live: bool, watchdog: Watchdog, worker: Any
) -> None:
    """A process that is gone ends no task: its result was lost on the way."""
    worker.consumer.turns, worker.blueprint.state = False, CLOSE
    request: Any = FakeRequest(pid)
    worker_state.active_requests.add(request)
    try:
        assert _is_let_live(watchdog) is is_let_live
    finally:
        worker_state.active_requests.discard(request)


def test_a_worker_within_another_program_is_never_ended(worker: Any) -> None:
    watchdog = Watchdog(STUCK_AFTER)
    host = threading.Thread(target=watchdog.begin, args=(worker,))
    host.start()
    host.join()
    worker.consumer.turns = False

    assert _is_let_live(watchdog)
