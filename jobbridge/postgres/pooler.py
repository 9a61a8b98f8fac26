"""A pooler between us and Postgres: seen by its numbers, and tried for what it does between two transactions.

A server tells each client its process number at the start (BackendKeyData), and again when asked (`pg_backend_pid()`).
A pooler makes up the first, and passes on the second: they differ, in every version of PgBouncer and in all that work
like it. Behind one we prepare no statements and leave no settings in sessions that are not ours.

Whether it keeps one session for one client (session pooling), so that locks and LISTEN work, no version says. It is
tried: in transaction pooling, a second client is soon given the session that the first one has just used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import psycopg

ROUNDS: Final = 5

_WHICH = "SELECT pg_backend_pid()"


def shares_sessions(parameters: Mapping[str, Any]) -> bool:
    """Tell whether two clients of this pooler come to use one session while both are there.

    Args:
        parameters: How to connect.

    Raises:
        psycopg.Error: It had no two sessions for us, for as long as it lets clients wait (`query_wait_timeout`).
    """
    with (
        psycopg.connect(**parameters, autocommit=True, prepare_threshold=None) as one,
        psycopg.connect(**parameters, autocommit=True, prepare_threshold=None) as other,
    ):
        seen = {_session_of(one)}
        for _ in range(ROUNDS):
            with other.transaction():
                if _session_of(other) in seen:
                    return True
                # Its session is taken by the other now, if it was free.
                seen.add(_session_of(one))
            if len(seen) > 1:
                return True
    return False


def _session_of(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(_WHICH).fetchone()
    assert row is not None
    return int(row[0])
