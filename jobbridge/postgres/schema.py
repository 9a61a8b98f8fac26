"""In which schema what is ours lives, and how a statement that says `public.` is said for another one.

Our statements name everything of ours with `public.`, the default. Where `JOBBRIDGE_SCHEMA` says otherwise, cursors of
ours render each text once and send the rendered one (decision 0036). Only names that are ours are meant: a table of the
user's own, in a statement that he runs on a connection of ours, stays where he says that it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, Final

from psycopg import sql

from jobbridge.errors import ConfigurationError

#: Where it lives unless somebody says otherwise.
PUBLIC: Final = "public"

#: What a statement may name there. This room knows nothing of what is in them; a test holds the list complete.
OURS: Final = (
    "job_audit", "job_awaiters", "job_batches", "job_chords", "job_count_changes", "job_count_parts", "job_counts",
    "job_details", "job_events", "job_events_event_id_seq", "job_families", "job_family_members", "job_flow",
    "job_flow_totals", "job_holds", "job_hours", "job_inbox", "job_keys", "job_limits", "job_links",
    "job_queue_pauses", "job_requests", "job_retention", "job_rule_changes", "job_rules", "job_schedule_fires",
    "job_schedules", "job_secrets", "job_services", "job_signouts", "job_singletons", "job_stuck_workers",
    "job_suspensions", "job_tokens", "job_waits", "job_watchers", "job_workers", "jobs",
)  # fmt: skip
_NAMED = re.compile(rf'(?<![\w."])(?:public|"public")\.(?="?(?:{"|".join(OURS)}|jobbridge_\w+)\b)')
# A migration also says `SET search_path = 'public'`, and puts names together: `'public.' || name`.
_ANY = re.compile(r"""(?<![\w."])(?:public|"public")(?=\.)|(?<=')public(?=')""")

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


def schema_of(connection: object) -> str:
    """Say for which schema a connection renders statements."""
    return getattr(connection, "schema", PUBLIC)


def qualified(connection: object, name: str) -> str:
    """Give the name of something of ours with the schema that a connection renders statements for."""
    return f"{schema_of(connection)}.{name}"


def speak(connection: Any, schema: str, *, says_all: bool = False) -> None:
    """Have a connection of psycopg's render what it sends for a schema.

    Args:
        connection: Of ours, or another face of a caller's; synchronous or not.
        schema: Where what is ours lives.
        says_all: It sends our statements only, and some put names together: migrations.
    """
    connection.schema, connection.says_all = schema, says_all
    if schema != PUBLIC:
        connection.cursor_factory = speaking(connection.cursor_factory)


@cache
def speaking(kind: Any) -> Any:
    """Make a class of cursors that render statements for the schema of their connection from one that does not."""
    return kind if issubclass(kind, _Speaking) else type(f"{kind.__name__}InSchema", (_Speaking, kind), {})


class _Speaking:
    """In front of any of psycopg's cursors; what it calls behind it is a coroutine or not, as with that."""

    connection: Any

    def execute(self, query: Any, *arguments: Any, **named: Any) -> Any:
        return self._behind("execute")(self._said(query), *arguments, **named)

    def executemany(self, query: Any, *arguments: Any, **named: Any) -> Any:
        return self._behind("executemany")(self._said(query), *arguments, **named)

    def stream(self, query: Any, *arguments: Any, **named: Any) -> Any:
        return self._behind("stream")(self._said(query), *arguments, **named)

    def copy(self, statement: Any, *arguments: Any, **named: Any) -> Any:
        return self._behind("copy")(self._said(statement), *arguments, **named)

    def _behind(self, name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(super(), name)
        return found

    def _said(self, query: Any) -> Any:
        return rendered(query, self.connection)


def rendered(query: Any, connection: Any) -> Any:
    """Render a statement of any of psycopg's kinds for the schema of a connection."""
    schema = schema_of(connection)
    if schema == PUBLIC:
        return query
    if isinstance(query, sql.Composable):
        query = query.as_string(
            connection if hasattr(connection, "connection") else None
        )  # psycopg2's is no context
    if isinstance(query, str | bytes):
        return in_schema(query, schema, says_all=getattr(connection, "says_all", False))
    return query


# Statements are constants, and what is put together from parts has few forms: as many as a process uses.
@lru_cache(maxsize=2048)
def in_schema(text: Any, schema: str, *, says_all: bool = False) -> Any:
    """Render a statement's text, `str` or `bytes`, for a schema."""
    if isinstance(text, bytes):
        return in_schema(text.decode(), schema, says_all=says_all).encode()
    return _ANY.sub(schema, text) if says_all else _NAMED.sub(f"{schema}.", text)
