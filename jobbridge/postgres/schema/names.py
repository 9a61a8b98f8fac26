"""What is ours by name, and what the schema that holds it may be called."""

from __future__ import annotations

import re
from typing import Final

from jobbridge.errors import ConfigurationError

#: Where it lives unless somebody says otherwise.
PUBLIC: Final = "public"

#: What a statement may name there. This room knows nothing of what is in them; a test holds the list complete.
OURS: Final = (
    "job_audit", "job_awaiters", "job_batches", "job_chords", "job_count_changes", "job_count_parts", "job_counts",
    "job_details", "job_events", "job_events_event_id_seq", "job_families", "job_family_members", "job_flow",
    "job_followers", "job_flow_totals", "job_holds", "job_hours", "job_inbox", "job_keys", "job_limits",
    "job_links", "job_queue_pauses", "job_requests", "job_retention", "job_rule_changes", "job_rules",
    "job_schedule_fires", "job_schedules", "job_secrets", "job_services", "job_signouts", "job_singletons",
    "job_stuck_workers", "job_suspensions", "job_tokens", "job_waits", "job_watchers", "job_workers", "jobs",
)  # fmt: skip

_LEGAL = re.compile(r"[a-z_][a-z0-9_]*")
_LONGEST = 63  # bytes: Postgres cuts names behind them
_TAKEN = {
    "information_schema": "it is the SQL standard's",
    "jobbridge": "what SQL calls is there: jobbridge.enqueue",
    "jobbridge_broker": "the messages are there",
    "psa": "the handlers of the pack have their tables there",
}
#: PostgreSQL 18 manual, appendix C: what is no name without quotes. We write it without.
_KEYWORDS: Final = {
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization", "binary", "both",
    "case", "cast", "check", "collate", "collation", "column", "concurrently", "constraint", "create", "cross",
    "current_catalog", "current_date", "current_role", "current_schema", "current_time", "current_timestamp",
    "current_user", "default", "deferrable", "desc", "distinct", "do", "else", "end", "except", "false", "fetch",
    "for", "foreign", "freeze", "from", "full", "grant", "group", "having", "ilike", "in", "initially", "inner",
    "intersect", "into", "is", "isnull", "join", "lateral", "leading", "left", "like", "limit", "localtime",
    "localtimestamp", "natural", "not", "notnull", "null", "offset", "on", "only", "or", "order", "outer", "overlaps",
    "placing", "primary", "references", "returning", "right", "select", "session_user", "similar", "some",
    "symmetric", "system_user", "table", "tablesample", "then", "to", "trailing", "true", "union", "unique", "user",
    "using", "variadic", "verbose", "when", "where", "window", "with",
}  # fmt: skip
_HINT = "Name it with small letters, digits and underscores: JOBBRIDGE_SCHEMA=background_jobs."


def fault_of(name: str) -> str | None:
    """Say why a schema cannot be ours; None: it can."""
    if not name:
        return "it is empty"
    if len(name.encode()) > _LONGEST:
        return f"it has more than {_LONGEST} bytes"
    if not _LEGAL.fullmatch(name):
        return "it has other characters than small letters, digits and underscores, or begins with a digit"
    if name.startswith("pg_"):
        return "names with pg_ are Postgres's own"
    if name in _KEYWORDS:
        return "it is a word of SQL"
    return _TAKEN.get(name)


def checked(name: str) -> str:
    """Give the name of a schema that can be ours.

    Raises:
        ConfigurationError: It cannot; says why.
    """
    if (fault := fault_of(name)) is not None:
        raise ConfigurationError(f"The schema {name!r} cannot hold the job tables: {fault}.", hint=_HINT)
    return name
