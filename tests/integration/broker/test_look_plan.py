"""What waits in a queue is told from an index, however much waits and whatever its priority."""

from __future__ import annotations

import psycopg

from jobbridge.broker.admin import queue_admin


def test_the_oldest_message_is_found_without_reading_all(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        # All of one priority: of the others there is nothing, and to find that out must not cost a look at all.
        connection.execute(
            "INSERT INTO jobbridge_broker.messages (queue, priority, headers, properties, body)"
            " SELECT 'celery', 0, '{}', '{}', '' FROM generate_series(1, 20000)"
        )
        connection.execute("ANALYZE jobbridge_broker.messages")

        rows = connection.execute(f"EXPLAIN {queue_admin.LOOK}", {"queues": ["celery"], "limit": 100})
        plan = "\n".join(row[0] for row in rows)
        [(queue, ready, later, oldest)] = connection.execute(
            queue_admin.LOOK, {"queues": ["celery"], "limit": 100}
        ).fetchall()

    assert "messages_pkey" not in plan, plan
    assert "messages_ready" in plan
    assert (queue, ready, later) == ("celery", 100, 0)
    assert oldest is not None
