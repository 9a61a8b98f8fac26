"""What the soak sends, and what was confirmed as cancelled. Sent again, with the same ids, until Postgres says yes."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import psycopg
from celery import chain, chord
from kombu.exceptions import OperationalError

from jobbridge import Celery
from jobbridge.core.keys import job_id_for
from jobbridge.errors import DatabaseError
from jobbridge.runners.blocks import bulk

#: What a sender meets while Postgres is away, or refuses.
AWAY = (DatabaseError, OperationalError, psycopg.OperationalError)
_PORTION = 50


@dataclass
class Sent:
    """The account of what was sent.

    Attributes:
        kinds: Of every job its kind, by task id.
        cancelled: When the cancel of a job was confirmed, in seconds of `time.time`.
        results: What a job's result is to be.
    """

    kinds: dict[str, str] = field(default_factory=dict)
    cancelled: dict[str, float] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)


class Sender:
    """Sends mixed jobs until there are `number`; in a thread.

    Args:
        app: By which they are sent.
        number: Of jobs, counting each part and link.
        lead: So many at most are sent and not ended, by `open_jobs`.
        chance: Of what is sent.
    """

    def __init__(self, app: Celery, number: int, *, chance: random.Random) -> None:
        self.sent = Sent()
        self._app, self._number, self._chance = app, number, chance
        self._to_cancel: deque[tuple[float, str]] = deque()
        self._stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def stop(self) -> None:
        self._stopped.set()
        self.thread.join()

    def _run(self) -> None:
        while len(self.sent.kinds) < self._number and not self._stopped.is_set():
            self._send_portion()
            self._cancel_some()
        while self._to_cancel:
            self._cancel_some()
            self._stopped.wait(0.05)

    def _send_portion(self) -> None:
        plain = [self._id("plain") for _ in range(_PORTION)]
        priorities = [self._chance.randrange(10) for _ in plain]
        seconds = [0.2 if self._chance.random() < 0.02 else 0.0 for _ in plain]

        def send_plain() -> None:
            with bulk(app=self._app):
                for task_id, priority, each in zip(plain, priorities, seconds, strict=True):
                    self._app.tasks["plain"].apply_async([each], task_id=task_id, priority=priority)

        self._send_once(plain[0], send_plain)
        self._send_one("eta", "plain", [], countdown=self._chance.uniform(0.5, 5))
        self._send_one("again", "again", [self._chance.randrange(1, 3)])
        doomed = self._send_one("cancel", "plain", [0.5], countdown=self._chance.uniform(0, 6))
        self._to_cancel.append((time.time() + self._chance.uniform(0, 4), doomed))
        links = [self._id("link") for _ in range(3)]
        task, body = self._app.tasks["link"], self._app.tasks["body"]
        self.sent.results[links[-1]] = 3
        self._send_once(
            links[0],
            lambda: chain(
                task.s(0).set(task_id=links[0]),
                task.s().set(task_id=links[1]),
                task.s().set(task_id=links[2]),
            ).apply_async(),
        )
        parts, end = [self._id("part") for _ in range(4)], self._id("body")
        self.sent.results[end] = 10
        self._send_once(
            parts[0],
            lambda: chord(
                [task.s(number).set(task_id=part) for number, part in enumerate(parts)],
                body.s().set(task_id=end),
            ).apply_async(),
        )

    def _send_one(self, kind: str, name: str, args: list[Any], **options: Any) -> str:
        task_id = self._id(kind)
        self._send_once(task_id, lambda: self._app.tasks[name].apply_async(args, task_id=task_id, **options))
        return task_id

    def _cancel_some(self) -> None:
        while self._to_cancel and self._to_cancel[0][0] <= time.time():
            _, task_id = self._to_cancel.popleft()
            if self._surely(lambda: self._app.cancel_job(task_id)):  # noqa: B023  # called at once
                self.sent.cancelled[task_id] = time.time()

    def _id(self, kind: str) -> str:
        task_id = str(uuid.uuid4())
        self.sent.kinds[task_id] = kind
        return task_id

    def _send_once(self, first: str, send: Any) -> None:
        """Send all or nothing, and again if nothing came of it: a job that has ended would run once more."""

        def try_to_send() -> None:
            if self._app.jobs.find(job_id_for(first)) is None:
                with self._app.database.transaction() as connection, self._app.enqueue_on(connection):
                    send()

        self._surely(try_to_send)

    def _surely(self, do: Any) -> Any:
        while True:
            try:
                return do()
            except AWAY:
                time.sleep(0.1)  # between two tries
