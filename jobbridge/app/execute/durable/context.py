"""The durable calls of a job's context; in a coroutine they are awaited, by the same names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from jobbridge.app.loops import coroutines
from jobbridge.core.durable import TIMED_OUT
from jobbridge.core.keys import JobKey, job_id_for
from jobbridge.core.retry import RetryPolicy
from jobbridge.core.signed.event_links import CHOICES, LASTS


class DurableContext:
    """The part of a job's context that is recorded: what was done is not done again, and the job may sleep for days.

    A job that sleeps or waits holds no worker. When it goes on, its handler runs again from the top, and each of these
    calls gives what is recorded of it (docs/durable-jobs.md). In `async def` handlers, await them. One that is new
    while recorded ones were not made yet ends the job with `HandlerChanged`, which no `except Exception` sees: the code
    has changed.
    """

    _task: Any
    job_id: Any
    tenant_id: Any

    def run(
        self,
        name: str,
        fn: Callable[..., Any],
        *args: Any,
        retry: RetryPolicy | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Give what `fn(*args, **kwargs)` gives, and record it: a later start gets the recorded value.

        Args:
            name: Of the step; the same name again is a further step.
            fn: A function; in a coroutine also a coroutine function.
            args: Of it.
            retry: Its own; else what it raises ends the attempt, and the next one makes it again.
            key: Tells this step from others of its name, wherever it stands.
            kwargs: Of the function.

        Raises:
            UnsupportedOption: What it gave is no JSON.
        """
        return self._steps.run(name, fn, args, kwargs, retry=retry, key=key)

    def sleep(self, span: float | timedelta) -> Any:
        """Go on after a while: seconds or a timedelta, days too. The worker is free meanwhile."""
        return self._steps.sleep(span)

    def sleep_until(self, at: datetime) -> Any:
        """Go on at that time, which is aware."""
        return self._steps.sleep_until(at)

    def wait_for(
        self,
        name: str,
        timeout: float | timedelta | None = None,
        *,
        key: str | None = None,
        default: Any = TIMED_OUT,
    ) -> Any:
        """Give the payload of the event of that name, which may have come before.

        Args:
            name: As `send_event` has it.
            timeout: Seconds or a timedelta; None: for ever.
            key: Events that are sent with this key come too, besides those for the job's own id.
            default: What to give when nothing came in time.
        """
        return self._steps.wait_for(name, timeout, key, default)

    def event_link(
        self, name: str, *, expires_in: timedelta = LASTS, choices: Sequence[str] = CHOICES
    ) -> str:
        """Make a link to a page on which somebody without an account answers, once, what this job waits for.

        Each call makes another; `ctx.run("link", ctx.event_link, name)` keeps to one. In a coroutine it is not awaited.

        Args:
            name: Of the event, as in `wait_for`.
            expires_in: For so long it is good.
            choices: The buttons of the page.

        Raises:
            ConfigurationError: There is no JOBBRIDGE_SECRET_KEY to sign it with.
            UnsupportedOption: A value cannot be used.
        """
        key = JobKey(tenant=self.tenant_id, job_id=job_id_for(self.job_id))
        link: str = self._task.app.durable.event_link(key, name, expires_in=expires_in, choices=choices)
        return link

    def call(self, task: Any, *args: Any, **kwargs: Any) -> Any:
        """Run another job and give its result, or raise what it failed with. It is cancelled with this one.

        Args:
            task: A task, its name, or a signature.
            args: Of it.
            kwargs: Of it.

        Raises:
            CalledJobEnded: It was cancelled, or expired.
        """
        return self._steps.call(task, args, kwargs)

    def gather(self, *signatures: Any) -> Any:
        """Run several jobs and give their results in this order; when all have ended, raise the first failure."""
        return self._steps.gather(signatures)

    def version(self, name: str, number: int) -> Any:
        """Give the number with which this job first came here; 0 for one that passed here before this was written."""
        return self._steps.version(name, number)

    def on_failure(self, undo: Any, *args: Any, **kwargs: Any) -> Any:
        """Have something done should the job fail for good: the last first, each once.

        Args:
            undo: A task, its name, or a function at the top of a module.
            args: Of it; JSON.
            kwargs: Of it.
        """
        return self._steps.on_failure(undo, args, kwargs)

    @property
    def _steps(self) -> Any:
        """Who makes them: at once, or awaited in a coroutine."""
        app = self._task.app
        made = app.durable.steps(self._task)
        return app.durable.awaited(made) if coroutines.is_in_coroutine() else made
