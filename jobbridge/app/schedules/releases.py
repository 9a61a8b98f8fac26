"""Which releases of an app declare schedules now, and which of them came last.

While a release is being replaced, beats of both run. The older one does not know what the newer one declares, and must
not take it away when it starts again. So each beat says once in a while what its code declares; what a release that
came later says is left alone for as long as that is fresh. A release that was rolled back is silent, and what only it
declared goes a while after.

All beats of an app take turns (`declared`), so that one key holds what they say.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobbridge.store.jobs import keys

if TYPE_CHECKING:
    from jobbridge.postgres.caller_connection import DriverConnection

#: A running beat says so this often.
SAYS_AGAIN = timedelta(minutes=5)
#: What was said holds so long.
HOLDS = timedelta(minutes=15)


def declared_later(
    connection: DriverConnection, app_name: str, declared: Iterable[UUID], *, now: datetime
) -> set[UUID]:
    """Say what this release declares; give what a release declares that was seen first after this one.

    Args:
        connection: In a transaction in which nobody else does this.
        app_name: Whose releases.
        declared: The ids of its schedules.
        now: What time it is.
    """
    own = sorted(str(each) for each in declared)
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
    later = [each for each in fresh if each["first"] > known["first"]]
    return {UUID(schedule) for each in later for schedule in each["declared"]} - {UUID(each) for each in own}


def _key(app_name: str) -> str:
    return f"jobbridge/schedules of {app_name}"
