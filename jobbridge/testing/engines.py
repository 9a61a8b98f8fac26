"""An engine for a test: the app at a database of its own, with whoever runs its jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from jobbridge.core.keys import Engine
from jobbridge.testing.apps import rebound

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.testing.kit import Jobs
    from jobbridge.testing.servers import Servers

#: A worker that hangs ends its process, and this one is the test's: somebody may be in a debugger.
_CONF = {"jobbridge_worker_stuck_after": 86_400.0}

_active: list[Jobs] = []


@contextmanager
def opened(
    engine: str, app: Celery, servers: Servers, *, database_url: str | None = None, **options: Any
) -> Iterator[Jobs]:
    """Have the app's jobs run on an engine until the block ends.

    Args:
        engine: `inline`, `ce` or `ee`.
        app: Whose jobs.
        servers: Where its database is made.
        database_url: Of one that there is; None: of its own.
        options: Of the engine: `eager` inline; `pool` and `concurrency` of a worker.
    """
    with ExitStack() as stack:
        url = database_url or stack.enter_context(servers.database())
        settings: dict[str, Any] = {"job_runner_type": Engine.CELERY}
        if engine == "ee":
            from jobbridge.testing.workers import temporal_settings

            settings = temporal_settings(servers)
        stack.enter_context(rebound(app, database_url=url, settings=settings, conf=_CONF))
        yield stack.enter_context(running(engine, app, **options))


@contextmanager
def running(engine: str, app: Celery, **options: Any) -> Iterator[Jobs]:
    """The same for an app that is where it should be."""
    jobs = _made(engine, app, **options)
    _active.append(jobs)
    try:
        jobs.start()
        yield jobs
    finally:
        _active.remove(jobs)
        jobs.close()


def _made(engine: str, app: Celery, **options: Any) -> Jobs:
    if engine == "inline":
        from jobbridge.testing.inline import InlineJobs

        return InlineJobs(app, **options)
    from jobbridge.testing import workers

    return workers.CeleryJobs(app, **options) if engine == "ce" else workers.TemporalJobs(app, **options)


def active() -> Jobs:
    """Give the jobs of the test that is going on.

    Raises:
        RuntimeError: It has asked for none.
    """
    if not _active:
        raise RuntimeError(
            "No engine of jobbridge.testing is there: have the test take the fixture `jobbridge_inline`, "
            "`jobbridge_ce`, `jobbridge_ee` or `jobbridge`, or derive its class from `JobBridgeTestCase`."
        )
    return _active[-1]
