"""By which keys rows and messages are sealed: before a key is taken away, none may need it any more."""

from __future__ import annotations

from collections import Counter
from typing import LiteralString

from jobbridge.store.database import Database

#: All rows are read, and what is sealed in them begins with `jb1:<key id>:` (`jobbridge.codec.sealing`).
_FOUND: LiteralString = "regexp_matches({text}, 'jb1:([A-Za-z0-9_.-]{{1,32}}):', 'g') AS found"
_TEXTS: dict[str, LiteralString] = {
    "public.jobs": (
        "concat_ws(' ', metadata, message, progress_message, result, error, traceback, "
        "encode(substring(result_payload FROM 1 FOR 40), 'escape'))"
    ),
    "public.job_schedules": "concat_ws(' ', args, kwargs)",
    "public.job_details": "concat_ws(' ', result, error, traceback)",
    "public.job_family_members": "arguments",
    "public.job_families": "resumption",
    "public.job_chords": "encode(substring(body FROM 1 FOR 40), 'escape')",
    "public.job_keys": "encode(substring(value FROM 1 FOR 40), 'escape')",
    "jobbridge_broker.messages": "encode(substring(body FROM 1 FOR 40), 'escape')",
    "jobbridge_broker.dead_letters": "encode(substring(body FROM 1 FOR 40), 'escape')",
}

#: One for each table: the broker's and the jobs' are not asked together (docs/tenancy.md, Citus).
COUNT_KEYS: tuple[LiteralString, ...] = tuple(
    f"SELECT found[1], count(DISTINCT (row.tableoid, row.ctid)) FROM {table} AS row, {_FOUND.format(text=text)}"
    " GROUP BY found[1]"
    for table, text in _TEXTS.items()
)


def count_keys(database: Database) -> dict[str, int]:
    """Give how many rows and messages are sealed by each key, by its id. Reads all tables."""
    counts: Counter[str] = Counter()
    with database.connection() as connection:
        for statement in COUNT_KEYS:
            for name, number in connection.execute(statement).fetchall():
                counts[name] += int(number)
    return dict(sorted(counts.items()))


# The first words tell the key: of large values no more is read.
_HEADS_OF_JOB: LiteralString = """
    concat_ws(' ', left(metadata -> 'data' ->> '$encrypted', 48), left(metadata -> 'argsrepr' ->> '$encrypted', 48),
        left(message, 80), left(result::text, 80), substring(error FROM 'jb1:[A-Za-z0-9_.-]{1,32}:'),
        left(traceback, 48), left(progress_message, 48), encode(substring(result_payload FROM 1 FOR 40), 'escape'))
"""
_HEAD_OF_BODY: LiteralString = "encode(substring(body FROM 1 FOR 40), 'escape')"

_KEYS_OF: LiteralString = """
SELECT found[1], bool_or(is_waiting)
FROM looked, regexp_matches(text, 'jb1:([A-Za-z0-9_.-]{1,32}):', 'g') AS found
GROUP BY found[1]
"""

#: At both ends of what there is, and what is still to run; each by an index, and only so many.
SAMPLE_KEYS_OF_JOBS: LiteralString = f"""
WITH looked AS (
    (SELECT true AS is_waiting, {_HEADS_OF_JOB} AS text FROM public.jobs
     WHERE completed_at IS NULL ORDER BY created_at, job_id LIMIT %(limit)s)
    UNION ALL
    (SELECT false, {_HEADS_OF_JOB} FROM public.jobs ORDER BY created_at, job_id LIMIT %(limit)s)
    UNION ALL
    (SELECT false, {_HEADS_OF_JOB} FROM public.jobs ORDER BY created_at DESC, job_id DESC LIMIT %(limit)s)
    UNION ALL
    (SELECT true, concat_ws(' ', left(args::text, 80), left(kwargs::text, 80)) FROM public.job_schedules
     WHERE deleted_at IS NULL LIMIT %(limit)s)
)
{_KEYS_OF}"""

SAMPLE_KEYS_OF_MESSAGES: LiteralString = f"""
WITH looked AS (
    (SELECT true AS is_waiting, {_HEAD_OF_BODY} AS text FROM jobbridge_broker.messages ORDER BY id LIMIT %(limit)s)
    UNION ALL
    (SELECT true, {_HEAD_OF_BODY} FROM jobbridge_broker.messages ORDER BY id DESC LIMIT %(limit)s)
    UNION ALL
    (SELECT false, {_HEAD_OF_BODY} FROM jobbridge_broker.dead_letters ORDER BY id LIMIT %(limit)s)
    UNION ALL
    (SELECT false, {_HEAD_OF_BODY} FROM jobbridge_broker.dead_letters ORDER BY id DESC LIMIT %(limit)s)
)
{_KEYS_OF}"""


def sample_keys(database: Database, *, limit: int = 500) -> dict[str, bool]:
    """Look at the oldest and the newest rows and messages, and at the oldest jobs that have not ended.

    Args:
        database: Where they are.
        limit: So many of each.

    Returns:
        The ids of the keys by which they are sealed, and whether something that is still to run needs it.
    """
    found: dict[str, bool] = {}
    with database.connection() as connection:
        for statement in (SAMPLE_KEYS_OF_JOBS, SAMPLE_KEYS_OF_MESSAGES):
            for name, is_waiting in connection.execute(statement, {"limit": limit}).fetchall():
                found[name] = found.get(name, False) or bool(is_waiting)
    return dict(sorted(found.items()))
