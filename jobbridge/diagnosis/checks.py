"""What `jobbridge doctor` looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobbridge.app.urls import default_broker_url
from jobbridge.core.masking.values import without_passwords
from jobbridge.diagnosis import (
    connections,
    consumers,
    encryption,
    engines,
    holders,
    partitions,
    time_limits,
    upkeep,
    vacuum,
    waits,
)
from jobbridge.diagnosis.findings import Check, bad, good
from jobbridge.errors import JobBridgeError
from jobbridge.store.counts.counts import CountStore

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.settings import Settings


def check_all(app: Celery, settings: Settings) -> list[Check]:
    """Look at everything; what needs the database only if that can be used."""
    database = _check_database(app)
    handlers = _check_handlers(app)
    checks = [engines.check_edition(app, settings, has_tables=database.is_good), database]
    if settings.database_url is not None or app.conf.broker_url:
        checks.append(_check_broker(app, settings))
    temporal = engines.check_temporal(app, settings)
    checks += temporal
    checks.append(handlers)
    if not database.is_good:
        return checks
    checks.append(connections.check_connections(app))
    checks.append(vacuum.check_vacuum(app))
    checks += partitions.check_partitions(app)
    checks += encryption.check_keys(app)
    checks += consumers.check_workers(app)
    checks += time_limits.check_time_limits(app)
    checks += consumers.check_schedules(app)
    checks += engines.check_fallback(app)
    checks += holders.check_held(app)
    checks += waits.check_waits(app)
    checks += upkeep.check_services(app)
    checks += upkeep.check_counts(app)
    if temporal and all(check.is_good for check in temporal):
        checks += upkeep.check_drift(app)
    return checks


def _check_database(app: Celery) -> Check:
    try:
        counts = CountStore(app.database).totals()
    except JobBridgeError as error:
        return bad("database", str(error), error.hint)
    total = sum(counts.values())
    by_status = ", ".join(
        f"{count} {engine.value} {status.value}" for (engine, status), count in counts.items()
    )
    return good("database", f"migrated; {total} jobs" + (f": {by_status}" if counts else ""))


def _check_broker(app: Celery, settings: Settings) -> Check:
    if app.conf.broker_url == default_broker_url(None) and settings.database_url is not None:
        return bad(
            "broker",
            f"It is the database of DATABASE_URL, and {_place_of(settings.database_url)} is none of Postgres.",
            "Set DATABASE_URL=postgresql://user:password@host/name; or broker_url, to another broker.",
        )
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
            return good("broker", connection.as_uri())
    except Exception as error:  # whatever a transport raises, here it is only shown
        return bad(
            "broker",
            without_passwords(str(error)),
            getattr(error, "hint", "") or "Check the broker's URL, and that it runs.",
        )


def _place_of(url: str) -> str:
    """Give what of an address is no secret, whatever is in it."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


def _check_handlers(app: Celery) -> Check:
    try:
        app.loader.import_default_modules()
    except ImportError as error:
        return bad("handlers", f"a module cannot be imported: {error}", "Install what it needs.")
    names = sorted(name for name in app.tasks if not name.startswith("celery."))
    return good("handlers", ", ".join(names) or "none are registered")
