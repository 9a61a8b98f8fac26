"""What `jobbridge doctor` looks at."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import util
from typing import TYPE_CHECKING, Any

from jobbridge.cli.common import ago
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.errors import JobBridgeError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.settings import Settings
    from jobbridge.store.jobs import WaitingJobs

#: What waits longer than this, waits for something that is not there.
_PATIENCE = timedelta(minutes=1)
_REPLY_SECONDS = 1.5
#: Older ones are history.
_FALLBACKS_SHOWN = timedelta(days=1)
#: One that has ended is no trouble any more after this time.
_FALLBACK_IS_RECENT = timedelta(hours=1)

_PASSWORD = re.compile(r"(://[^:/@]*:)[^@/]*@")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    is_good: bool
    found: str
    hint: str = ""


def check_all(app: Celery, settings: Settings) -> list[Check]:
    """Look at everything; what needs the database only if that can be used."""
    database = _check_database(app)
    checks = [database]
    if settings.database_url is not None or app.conf.broker_url:
        checks.append(_check_broker(app))
    checks += _check_temporal(settings)
    if database.is_good:
        checks += _check_waiting(app)
        checks += _check_fallback(app)
    return [*checks, _check_handlers(app)]


def masked(value: Any) -> Any:
    """Hide the password of a URL."""
    return _PASSWORD.sub(r"\1***@", str(value)) if value is not None else None


def _check_database(app: Celery) -> Check:
    try:
        counts = app.jobs.count_by_status()
    except JobBridgeError as error:
        return Check(name="database", is_good=False, found=str(error), hint=error.hint)
    total = sum(counts.values())
    by_status = ", ".join(
        f"{count} {engine.value} {status.value}" for (engine, status), count in counts.items()
    )
    return Check(
        name="database", is_good=True, found=f"migrated; {total} jobs" + (f": {by_status}" if counts else "")
    )


def _check_broker(app: Celery) -> Check:
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
            return Check(name="broker", is_good=True, found=connection.as_uri())
    except Exception as error:  # whatever a transport raises, here it is only shown
        return Check(name="broker", is_good=False, found=masked(error), hint=getattr(error, "hint", ""))


def _check_temporal(settings: Settings) -> list[Check]:
    is_wanted = settings.engine is Engine.TEMPORAL
    if util.find_spec("temporalio") is None:
        return [
            Check(
                name="temporal",
                is_good=not is_wanted,
                found="the extra is not installed",
                hint="Install it with `pip install 'jobbridge[temporal]'`.",
            )
        ]
    if not is_wanted and settings.sources.get("temporal_address") == "default":
        return []  # community edition: nobody expects a Temporal there
    return [_ask_temporal(settings)]


def _ask_temporal(settings: Settings) -> Check:
    from temporalio.service import RPCError

    from jobbridge.temporal.client import TemporalClient

    client = TemporalClient(settings)
    where = f"{settings.temporal_address}, namespace {settings.temporal_namespace!r}"
    try:
        workers = client.call(lambda own: client.pollers(own, settings.temporal_job_task_queue))
    except JobBridgeError as error:
        return Check(name="temporal", is_good=False, found=str(error), hint=error.hint)
    except (RPCError, TimeoutError) as error:
        hint = "Check TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE."
        return Check(name="temporal", is_good=False, found=f"{where}: {error}", hint=hint)
    finally:
        client.close()
    queue = settings.temporal_job_task_queue
    served = f"served by {', '.join(workers)}" if workers else "served by no worker at present"
    return Check(name="temporal", is_good=True, found=f"{where}, answers; task queue {queue!r} is {served}")


def _check_waiting(app: Celery) -> list[Check]:
    """Look for workers, and for jobs that wait for one, or for an engine."""
    waiting = app.jobs.count_waiting(older_than=_PATIENCE)
    undelivered = [each for each in waiting if each.status is JobStatus.PENDING]
    queued = [each for each in waiting if each.status is JobStatus.QUEUED]
    return [_check_workers(app, queued), _check_undelivered(undelivered)]


def _check_workers(app: Celery, queued: list[WaitingJobs]) -> Check:
    names = _workers(app)
    long_since = f"; {_told(queued)} for more than a minute" if queued else ""
    if names:
        return Check(name="workers", is_good=True, found=", ".join(names) + long_since)
    return Check(
        name="workers",
        is_good=not queued,
        found=f"none answers{long_since}",
        hint="Start `celery worker` for jobs of celery, `jobbridge temporal-worker` for those of temporal.",
    )


def _workers(app: Celery) -> list[str]:
    try:
        replies = app.control.ping(timeout=_REPLY_SECONDS) or []
    except Exception:  # the broker's own check tells why
        return []
    return sorted(name for reply in replies for name in reply)


def _check_undelivered(undelivered: list[WaitingJobs]) -> Check:
    found = f"{_told(undelivered)} that no engine has accepted" if undelivered else "every job was delivered"
    hint = "Start `jobbridge temporal-worker`, which delivers them; see that it reaches Temporal."
    return Check(name="delivery", is_good=not undelivered, found=found, hint=hint)


def _check_fallback(app: Celery) -> list[Check]:
    """Look for jobs that Postgres took because Temporal could not be reached."""
    fallen = app.jobs.fallen_back(within=_FALLBACKS_SHOWN)
    if not fallen:
        return []
    recent = datetime.now(UTC) - _FALLBACK_IS_RECENT
    named = ", ".join(f"{row.key.job_id} ({row.type}, {row.status.value})" for row in fallen[:5])
    more = f" and {len(fallen) - 5} more" if len(fallen) > 5 else ""
    return [
        Check(
            name="fallback",
            is_good=all(row.status.is_final and row.fell_back_at < recent for row in fallen),
            found=f"Postgres took jobs that Temporal could not within the last day: {named}{more}."
            f" Last at {fallen[0].fell_back_at:%H:%M:%S} UTC: {fallen[0].reason}",
            hint="Bring Temporal back; until then, make sure that a `celery worker` serves their queues.",
        )
    ]


def _told(waiting: list[WaitingJobs]) -> str:
    return ", ".join(
        f"{each.count} {each.engine.value} {each.status.value} (the oldest: {ago(each.since)})"
        for each in waiting
    )


def _check_handlers(app: Celery) -> Check:
    try:
        app.loader.import_default_modules()
    except ImportError as error:
        return Check(
            name="handlers",
            is_good=False,
            found=f"a module cannot be imported: {error}",
            hint="Install what it needs.",
        )
    names = sorted(name for name in app.tasks if not name.startswith("celery."))
    return Check(name="handlers", is_good=True, found=", ".join(names) or "none are registered")
