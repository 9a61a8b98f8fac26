"""Keys and values with a time to live: what groups and chords keep beside the jobs themselves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import LiteralString

import psycopg

from jobbridge.codec.sealing import Codec, key_of
from jobbridge.core.keys import SYSTEM_TENANT
from jobbridge.postgres.caller_connection import DriverConnection
from jobbridge.store.database import Database, refusal

_THIS_KEY: LiteralString = "tenant = %(tenant)s AND key = %(key)s"
_IS_ALIVE: LiteralString = "(expires_at IS NULL OR expires_at > now())"

GET: LiteralString = f"SELECT value FROM public.job_keys WHERE {_THIS_KEY} AND {_IS_ALIVE}"

GET_MANY: LiteralString = f"""
SELECT key, value FROM public.job_keys WHERE tenant = %(tenant)s AND key = ANY(%(keys)s) AND {_IS_ALIVE}
"""

SET: LiteralString = """
INSERT INTO public.job_keys (tenant, key, value, expires_at)
VALUES (%(tenant)s, %(key)s, %(value)s, now() + %(ttl)s::interval)
ON CONFLICT (tenant, key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at
"""

DELETE: LiteralString = f"DELETE FROM public.job_keys WHERE {_THIS_KEY}"

#: A counter whose time is over begins anew.
INCREMENT: LiteralString = f"""
INSERT INTO public.job_keys AS entry (tenant, key, counter)
VALUES (%(tenant)s, %(key)s, %(by)s)
ON CONFLICT (tenant, key) DO UPDATE SET
    counter = CASE WHEN {_IS_ALIVE.replace("expires_at", "entry.expires_at")} THEN coalesce(entry.counter, 0) ELSE 0 END
        + excluded.counter,
    expires_at = CASE WHEN entry.expires_at > now() THEN entry.expires_at END
RETURNING counter
"""

#: The member's own key tells its place in the count, and that it is counted.
COUNT_ONCE: LiteralString = """
WITH counted AS (
    INSERT INTO public.job_keys AS entry (tenant, key, counter)
    SELECT %(tenant)s, %(key)s, 1
    WHERE NOT EXISTS (SELECT FROM public.job_keys WHERE tenant = %(tenant)s AND key = %(member)s)
    ON CONFLICT (tenant, key) DO UPDATE SET counter = coalesce(entry.counter, 0) + 1
    RETURNING counter
), noted AS (
    INSERT INTO public.job_keys (tenant, key, counter, expires_at)
    SELECT %(tenant)s, %(member)s, counter, now() + %(ttl)s::interval
    FROM counted
    RETURNING counter
)
SELECT counter FROM noted
UNION ALL
SELECT counter FROM public.job_keys WHERE tenant = %(tenant)s AND key = %(member)s
"""

DELETE_COUNT: LiteralString = """
DELETE FROM public.job_keys
WHERE tenant = %(tenant)s AND (key = %(key)s OR starts_with(key, %(key)s || '/'))
"""

EXPIRE: LiteralString = f"UPDATE public.job_keys SET expires_at = now() + %(ttl)s::interval WHERE {_THIS_KEY}"

#: In bounded bites, so that no statement holds many locks.
DELETE_EXPIRED: LiteralString = """
DELETE FROM public.job_keys
WHERE (tenant, key) IN (
    SELECT tenant, key FROM public.job_keys WHERE expires_at <= now() LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
"""

Ttl = timedelta | float | None  # a number is seconds


class KeyStore:
    """Keys of the system tenant."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str) -> bytes | None:
        row = self._database.run(lambda own: own.execute(GET, of_system(key)).fetchone())
        return self._opened(key, row[0]) if row else None

    def mget(self, keys: Sequence[str]) -> dict[str, bytes | None]:
        """Give the values of those which there are."""
        params = {"tenant": SYSTEM_TENANT, "keys": list(keys)}
        found = self._database.run(lambda own: own.execute(GET_MANY, params).fetchall())
        return {key: self._opened(key, value) for key, value in found}

    def set(self, key: str, value: bytes, *, ttl: Ttl = None) -> None:
        """Store a value; without `ttl`, for good. States and results are among them: it is sealed."""
        stored = seal_key(self._database.codec, key, value)
        self._database.run(
            lambda own: own.execute(SET, of_system(key) | {"value": stored, "ttl": _interval(ttl)})
        )

    def _opened(self, key: str, value: bytes | None) -> bytes | None:
        is_sealed = value is not None and key_of(value) is not None
        return self._database.codec.open(bytes(value or b""), _place(key)) if is_sealed else value

    def delete(self, key: str) -> bool:
        """Tell whether there was one."""
        return self._database.run(lambda own: own.execute(DELETE, of_system(key)).rowcount) > 0

    def incr(self, key: str, by: int = 1) -> int:
        """Count, atomically; give the new count.

        Not repeated when the connection is lost, for that could count twice.
        """
        try:
            with self._database.connection() as connection:
                row = connection.execute(INCREMENT, of_system(key) | {"by": by}).fetchone()
        except psycopg.Error as error:
            raise refusal(error) from error
        assert row is not None  # an upsert without a condition returns its row
        return int(row[0])

    def count_once(self, key: str, member: str, *, ttl: Ttl) -> int:
        """Count a member, if it was not counted before; give the place that it has in the count.

        Args:
            key: Of the counter.
            member: One caller at a time speaks for it.
            ttl: How long the member is known.
        """
        params = of_system(key) | {"member": f"{key}/{member}", "ttl": _interval(ttl)}
        row = self._database.run(lambda own: own.execute(COUNT_ONCE, params).fetchone())
        assert row is not None
        return int(row[0])

    def delete_count(self, key: str) -> None:
        """Forget a counter and its members."""
        self._database.run(lambda own: own.execute(DELETE_COUNT, of_system(key)))

    def expire(self, key: str, *, ttl: Ttl) -> None:
        """Set the time to live anew."""
        self._database.run(lambda own: own.execute(EXPIRE, of_system(key) | {"ttl": _interval(ttl)}))

    def delete_expired(self, *, limit: int = 1000) -> int:
        """Delete up to `limit` keys whose time is over; give how many."""
        params = {"limit": limit}
        return self._database.run(lambda own: own.execute(DELETE_EXPIRED, params).rowcount)


def set_key(connection: DriverConnection, key: str, value: bytes | str, *, ttl: Ttl) -> None:
    """Store a value within a transaction."""
    connection.execute(SET, of_system(key) | {"value": value, "ttl": _interval(ttl)})


def of_system(key: str) -> dict[str, object]:
    """Give the parameters that name a key of the system tenant."""
    return {"tenant": SYSTEM_TENANT, "key": key}


def seal_key(codec: Codec, key: str, value: bytes | str) -> bytes | str:
    """Seal the value of a key, if there are keys to do so."""
    return codec.seal(value.encode() if isinstance(value, str) else value, _place(key)) if codec else value


def _place(key: str) -> str:
    return f"keys/{key}"


def _interval(ttl: Ttl) -> timedelta | None:
    return timedelta(seconds=ttl) if isinstance(ttl, int | float) else ttl
