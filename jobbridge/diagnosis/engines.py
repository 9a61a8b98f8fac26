"""Which engine jobs go to, who says so, and whether it is there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from importlib import util
from typing import TYPE_CHECKING

from jobbridge.core.keys import Engine
from jobbridge.diagnosis.findings import Check, bad, good, some
from jobbridge.errors import JobBridgeError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.settings import Settings

#: Older ones are history.
_FALLBACKS_SHOWN = timedelta(days=1)
#: One that has ended is no trouble any more after this time.
_FALLBACK_IS_RECENT = timedelta(hours=1)
#: The settings that say where jobs go.
_DECISIVE = ("edition", "job_runner_type")
_LIGHT_HINT = (
    "TEMPORAL_LIGHT has no effect: jobs go with workflows. Upgrade Temporal to 1.31, or leave it out."
)
_FILES = (".env", ".jobbridge")


def check_edition(app: Celery, settings: Settings, *, has_tables: bool) -> Check:
    """See that nothing contradicts the engine that the settings lead to."""
    engine, edition = settings.engine, settings.edition
    found = f"{edition}; jobs that name no engine go to {engine.value} ({_reason(settings)})"
    troubles = [
        f"{source} says {value!r}, and {settings.sources[field]} wins"
        for field in _DECISIVE
        for source, value in settings.overruled.get(field, {}).items()
    ]
    if settings.job_runner_type is Engine.CELERY and edition == "enterprise":
        troubles.append("the enterprise edition is set, and JOB_RUNNER_TYPE says celery")
    if (
        settings.job_runner_type is Engine.TEMPORAL
        and edition == "community"
        and _is_set(settings, "edition")
    ):
        troubles.append("the community edition is set, and JOB_RUNNER_TYPE says temporal")
    if has_tables:
        troubles += _workers_of_others(app, engine, is_from_file=_reason(settings).startswith(_FILES))
    if not troubles:
        return good("edition", found)
    return bad("edition", f"{found}; but {'; '.join(troubles)}", _edition_hint(settings))


def _reason(settings: Settings) -> str:
    field = "edition" if settings.job_runner_type is None else "job_runner_type"
    return settings.sources[field]


def _is_set(settings: Settings, field: str) -> bool:
    return settings.sources[field] != "default"


def _edition_hint(settings: Settings) -> str:
    files = {
        source.partition(" ")[0]
        for field in _DECISIVE
        for source in (settings.sources[field], *settings.overruled.get(field, {}))
        if source.startswith(_FILES)
    }
    where = f"Look into {', '.join(sorted(files))}: " if files else ""
    return f"{where}set EDITION (or JOB_RUNNER_TYPE) to the same value everywhere, for senders and workers."


def _workers_of_others(app: Celery, engine: Engine, *, is_from_file: bool) -> Iterable[str]:
    """Tell of workers that run, where none of them runs the jobs that would be sent from here.

    Workers may well have settings of their own; but where a file in this folder decides, it is likely the wrong one.
    """
    workers = app.workers.alive()
    running = {worker.engine for worker in workers}
    if running and engine not in running:
        others = ", ".join(sorted(other.value for other in running))
        yield f"all workers that run are of {others}"
    otherwise = [worker for worker in workers if worker.sends_to is not engine]
    if otherwise and is_from_file:
        named = some([f"{worker.name} (to {worker.sends_to.value})" for worker in otherwise])
        yield f"running workers have other settings, and send such jobs elsewhere: {named}"


def check_temporal(app: Celery, settings: Settings) -> list[Check]:
    """See whether Temporal answers, where it is wanted."""
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

    from jobbridge.temporal.deliver.light import is_offered
    from jobbridge.temporal.wire.client import TemporalClient

    client = TemporalClient(settings)
    where = f"{settings.temporal_address}, namespace {settings.temporal_namespace!r}"
    why = _why_wanted(settings)
    try:
        workers = client.call(lambda own: client.pollers(own, settings.temporal_job_task_queue))
        if settings.temporal_light and not client.call(is_offered):
            return bad("temporal", f"{where}, has no activities without a workflow", _LIGHT_HINT)
    except JobBridgeError as error:
        return bad("temporal", str(error), f"{error.hint}{why}")
    except (RPCError, TimeoutError) as error:
        hint = f"Check TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE.{why}"
        found = f"{where}: {str(error) or 'no answer in time'}"
        return bad("temporal", found, hint)
    finally:
        client.close()
    queue = settings.temporal_job_task_queue
    served = f"served by {', '.join(workers)}" if workers else "served by no worker at present"
    return good("temporal", f"{where}, answers; task queue {queue!r} is {served}")


def _why_wanted(settings: Settings) -> str:
    if settings.engine is not Engine.TEMPORAL:
        return ""
    return f" Jobs go there because of {_reason(settings)}: if that is wrong, correct it."


def check_fallback(app: Celery) -> list[Check]:
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
