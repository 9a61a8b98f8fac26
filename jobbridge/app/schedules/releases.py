"""Which releases of an app declare schedules now, and which of them came last.

While a release is being replaced, beats of both run. The older one does not know what the newer one declares, and must
not take it away, or change it back, when it starts again. So each beat says once in a while what its code declares,
each schedule with a digest of what it is to be; what a release that came later says is left alone for as long as that
is fresh. A release that was rolled back is silent, and a while after what only it declared goes, and what it changed is
changed back.

All beats of an app take turns (`declared`), so that one key holds what they say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobbridge.core.schedules.definition import ScheduleDefinition
from jobbridge.core.schedules.specs import kind_of
from jobbridge.store.jobs import keys

if TYPE_CHECKING:
    from jobbridge.postgres.caller_connection import DriverConnection

#: A running beat says so this often.
SAYS_AGAIN = timedelta(minutes=5)
#: What was said holds so long.
HOLDS = timedelta(minutes=15)


def digest_of(definition: ScheduleDefinition) -> str:
    """Give what is the same for equal definitions of a schedule, whichever process reads them."""
    told = {
        each.name: getattr(definition, each.name) for each in fields(definition) if each.name != "declared_by"
    }
    told["spec"] = [kind_of(definition.spec).value, definition.spec.text]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()[:32]


def declared_later(
    connection: DriverConnection, app_name: str, declared: Iterable[ScheduleDefinition], *, now: datetime
) -> set[UUID]:
    """Say what this release declares; give what a release that was seen first after this one declares otherwise.

    Args:
        connection: In a transaction in which nobody else does this.
        app_name: Whose releases.
        declared: Its schedules.
        now: What time it is.

    Returns:
        The ids of schedules that this one does not declare, or declares as something else.
    """
    own = {str(each.schedule_id): digest_of(each) for each in declared}
    row = connection.execute(keys.GET, keys.of_system(_key(app_name))).fetchone()
    said: list[dict[str, Any]] = [] if row is None else json.loads(row[0])
    fresh = [each for each in said if datetime.fromisoformat(each["until"]) > now]
    known = next((each for each in fresh if each["declared"] == own), None)
    if known is None:
        known = {"declared": own, "first": now.isoformat()}
        fresh.append(known)
    known["until"] = (now + HOLDS).isoformat()
    stored = {"value": json.dumps(fresh).encode(), "ttl": HOLDS}
    connection.execute(keys.SET, keys.of_system(_key(app_name)) | stored)
    return {
        UUID(schedule)
        for each in fresh
        if each["first"] > known["first"]
        for schedule, digest in _digests(each["declared"]).items()
        if own.get(schedule) != (digest or own.get(schedule, ""))
    }


def _digests(declared: dict[str, str] | list[str]) -> dict[str, str | None]:
    """Read what a beat said: one of a former release says only which schedules, and not what they are to be."""
    return dict(declared) if isinstance(declared, dict) else dict.fromkeys(declared)


def _key(app_name: str) -> str:
    return f"jobbridge/schedules of {app_name}"
