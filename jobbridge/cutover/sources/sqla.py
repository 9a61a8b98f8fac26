"""Kombu's own SQLAlchemy transport: messages are rows, and one that was delivered stays, invisible.

What a worker had taken when it ended is not told from what it had done: kombu loses it, and so does whoever reads. What
is read here is locked until it is safe, so a worker that runs there takes none of it meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobbridge.cutover.sources.base import PAGE, OldMessage, is_for_jobs, read_payload


class SqlaSource:
    """Reads the tables by kombu's session.

    Args:
        connection: Of kombu.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._channel = connection.channel()
        self._session = self._channel.session
        self.notes: list[str] = [
            "This transport does not say who consumes from it, and forgets what a worker had taken: stop its workers"
            " warmly."
        ]

    def queues(self, known: Sequence[str]) -> list[str]:
        names = [name for (name,) in self._session.query(self._channel.queue_cls.name).all()]
        self._session.commit()
        return sorted(name for name in names if is_for_jobs(name))

    def consumers(self, queues: Sequence[str]) -> int:
        return 0

    def pages(self, queue: str) -> Iterator[list[OldMessage]]:
        message = self._channel.message_cls
        found = self._session.query(self._channel.queue_cls).filter_by(name=queue).first()
        if found is None:
            return
        queue_id, last = found.id, 0
        while True:
            rows = (
                self._session.query(message)
                .with_for_update()
                .filter(message.queue_id == queue_id, message.visible != False, message.id > last)  # noqa: E712
                .order_by(message.id)
                .limit(PAGE)
                .all()
            )
            if not rows:
                self._session.commit()
                return
            last = rows[-1].id
            yield [read_payload(row.payload, queue=queue, receipt=row) for row in rows]
            self._session.commit()

    def delayed(self, routes: Mapping[str, Sequence[str]], *, are_all: bool) -> Iterator[list[OldMessage]]:
        return iter(())

    def held(self, queues: Sequence[str] | None) -> Iterator[list[OldMessage]]:
        return iter(())

    def remove(self, messages: Sequence[OldMessage]) -> None:
        for message in messages:
            message.receipt.visible = False
        self._session.commit()

    def close(self) -> None:
        self._session.rollback()
        self._connection.release()
