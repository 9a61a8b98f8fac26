"""Chords of which parts are found at an old broker.

Who counted their parts is the old result backend. Where a message tells how many there are (older releases of Celery
wrote `chord_size`) and all are found, none was counted there: then the chord goes on here. Else nobody can know when
its body is due, and it is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from kombu import serialization
from kombu.utils.encoding import str_to_bytes

from jobbridge.core.chords import place_of
from jobbridge.store.jobs import chords as rows
from jobbridge.store.moves import jobs as moves

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.cutover.old_message import OldJob
    from jobbridge.postgres.caller_connection import DriverConnection


class FoundChords:
    """The chords of one run.

    Args:
        app: Whose.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._bodies: dict[str, Any] = {}

    def note(self, connection: DriverConnection, job: OldJob) -> None:
        """Open the chord that a job is part of, in the transaction that takes the job over."""
        chord_id = place_of(job.arguments, job.headers).get("chord_id")
        body = _body_in(job.arguments[2] or {})
        if not chord_id or not isinstance(body, dict) or chord_id in self._bodies:
            return
        self._bodies[chord_id] = body
        size = body.get("chord_size")
        if not isinstance(size, int) or rows.lock(connection, chord_id) is not None:
            return
        content_type, encoding, data = serialization.dumps(
            dict(body), serializer=self._app.conf.task_serializer
        )
        expires = self._app.backend.chord_expires
        rows.open_chord(
            connection,
            chord_id,
            body=str_to_bytes(data),
            body_type=f"{content_type} {encoding}",
            header=None,
            lifetime=timedelta(seconds=expires) if expires else None,
        )
        rows.set_size(connection, chord_id, size)

    def incomplete(self) -> list[str]:
        """Say which of them cannot go on here."""
        told = []
        for chord_id, body in self._bodies.items():
            with self._app.database.connection() as connection:
                found = moves.count_parts(connection, chord_id)
            size = body.get("chord_size")
            if isinstance(size, int) and found >= size:
                continue
            parts = (
                f"{found} of {size} parts are here, the others ended at the old broker, and its result backend"
                " counted them"
                if isinstance(size, int)
                else f"{found} of its parts are here, and how many there were the old result backend alone knows"
            )
            told.append(
                f"The chord {chord_id} was under way: {parts}. Its body {body.get('task')!r} does not follow;"
                " send it by hand."
            )
        return told


def _body_in(embedded: Mapping[str, Any]) -> Any:
    """Give the body that waits for a part, or for the end of the chain that it begins."""
    if embedded.get("chord"):
        return embedded["chord"]
    chain = embedded.get("chain")
    return (chain[0].get("options") or {}).get("chord") if chain else None  # the last link stands first
