"""Many jobs as copies of all that a few left in the tables: what is measured is not how fast they are sent."""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

#: Copies of what is in a table of suspended jobs: each id becomes one that is made of it and of the number of the copy.
COPY = """
INSERT INTO {table} ({columns})
SELECT {copied}
FROM {table} AS own, generate_series(1, %(copies)s) AS copy (number),
    jsonb_populate_record(NULL::{table}, (
        SELECT jsonb_object_agg(key, CASE
            WHEN key IN ('job_id', 'task_id', 'external_id', 'correlation_id', 'detail_id', 'step') AND value <> 'null'
            THEN to_jsonb(md5((value #>> '{{}}') || copy.number)::uuid)
            WHEN key = 'headers'
            THEN replace(value::text, value ->> 'id', md5((value ->> 'id') || copy.number)::uuid::text)::jsonb
            ELSE value
        END) FROM jsonb_each(to_jsonb(own))
    )) AS made
WHERE {chosen}
"""

COLUMNS = """
SELECT column_name FROM information_schema.columns
WHERE table_schema || '.' || table_name = %s AND is_generated = 'NEVER' AND is_identity = 'NO'
"""


def copy_rows(url: str, copies: int, chosen: Mapping[str, str]) -> None:
    """Make so many copies of each row.

    Args:
        url: Of the database.
        copies: Of each; their ids are made of its own.
        chosen: By table which rows, as a condition on `own`; in this order.
    """
    with psycopg.connect(url) as connection:
        connection.execute(
            "SET session_replication_role = replica"
        )  # no triggers: nothing is to happen by it
        for table, condition in chosen.items():
            name = table if "." in table else f"public.{table}"
            columns = [row[0] for row in connection.execute(COLUMNS, [name]).fetchall()]
            statement = COPY.format(
                table=name,
                columns=", ".join(columns),
                copied=", ".join(f"made.{each}" for each in columns),
                chosen=condition,
            )
            connection.execute(statement.encode(), {"copies": copies})
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
