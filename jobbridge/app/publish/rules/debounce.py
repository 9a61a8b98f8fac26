"""How long `debounce` may put a job off: each new one waits anew, but all together no longer than `max_wait`.

The job that waits says in its metadata since when one does. Two senders that look at the same moment see the same, or
begin the same series: their jobs differ by less than the time between them.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from jobbridge.store.jobs.singletons import waits_since

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.options import JobOptions
    from jobbridge.core.keys import JobKey
    from jobbridge.core.rules.unique import UniqueRule

#: In the metadata of a row.
SINCE = "debounced_since"


def within_longest(
    app: Celery, rule: UniqueRule | None, job: JobKey, options: JobOptions, headers: dict[str, Any]
) -> JobOptions:
    """Have a new job not be put off for longer than its rule says; gives its options, which note since when it is.

    Args:
        app: Whose job.
        rule: By what it is unique.
        job: It.
        options: The caller's, with the key that the rule made.
        headers: Of the message; its time is given here.
    """
    if rule is None or rule.max_wait is None or options.singleton_key is None:
        return options
    with app.database.transaction(app.caller_connection) as connection:
        since = waits_since(connection, job, options.singleton_key)
    since = since or datetime.now(UTC)
    eta, latest = datetime.fromisoformat(headers["eta"]), since + rule.max_wait
    headers["eta"] = min(eta, latest).isoformat()
    return replace(options, job_metadata={**(options.job_metadata or {}), SINCE: since.isoformat()})
