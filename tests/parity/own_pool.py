"""A user's own pool (`-P custom`), and a user's own request class."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from celery import Task, shared_task
from celery.concurrency.base import BasePool, apply_target
from celery.worker.request import Request


class OwnPool(BasePool):
    """A thread for each task, as simple as can be."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.limit = self.limit or 2

    def on_apply(
        self, target: Any, args: Any = None, kwargs: Any = None, callback: Any = None,
        accept_callback: Any = None, **options: Any,
    ) -> threading.Thread:  # fmt: skip
        thread = threading.Thread(target=apply_target, args=(target, args, kwargs, callback, accept_callback))
        thread.start()
        return thread

    def _get_info(self) -> dict[str, Any]:
        return {**super()._get_info(), "max-concurrency": self.limit}


class OwnRequest(Request):
    """As in Celery's guide ("Custom requests"): it notes what Celery tells it, with names that we might like."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.started = self.begun = self.was_retried = self.is_with_pool = "of its own"
        self.settler = self.execution = None

    def give_back(self) -> str:
        return "of its own"

    def on_accepted(self, pid: int | None, time_accepted: float) -> None:
        self._note(f"{self.started} {self.begun} {self.was_retried} {self.is_with_pool} {self.give_back()}")
        super().on_accepted(pid, time_accepted)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        super().on_timeout(soft, timeout)
        self._note(f"on_timeout {'soft' if soft else 'hard'}")

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        self._note("on_failure")
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def _note(self, text: str) -> None:
        path = Path(os.environ["PARITY_FOLDER"]) / self.id
        path.mkdir(exist_ok=True)
        with (path / "request").open("a") as file:
            file.write(f"{text}\n")


class WithOwnRequest(Task):
    abstract = True
    engine = spec = prepare_arguments = readable_arguments = (
        object()
    )  # a database's, a document's: what people have
    Request = "tests.parity.own_pool:OwnRequest"  # type: ignore[assignment]  # Celery takes a name, too


@shared_task(name="parity.own_request", base=WithOwnRequest)
def own_request(how: str) -> str:
    if how == "fails":
        raise ValueError(how)
    if how == "is slow":
        threading.Event().wait(60)
    return how
