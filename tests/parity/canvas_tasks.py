"""Tasks of the tests of canvas: chords, chains, and what follows from an end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from celery import chord, group, shared_task

from jobbridge import JobContext, RetryPolicy, job
from tests.parity.tasks import add, echo, note, wait_for_file


@shared_task(name="parity.one")
def one(value: Any = 1) -> Any:
    return value


@shared_task(name="parity.counts_up")
def counts_up(value: int, name: str = "counts_up", release: str | None = None) -> int:
    """Note that it ran, and give one more; before that, wait for the test if it says so."""
    note(name, str(value))
    if release:
        wait_for_file(release)
    return value + 1


@shared_task(name="parity.body")
def body(values: Any) -> Any:
    note("body", repr(values))
    return values


@shared_task(name="parity.grows", bind=True)
def grows(self: Any, number: int) -> int:
    """Be a part that adds others to its chord."""
    for extra in range(number):
        self.add_to_chord(add.s(10, extra))
    return 0


@shared_task(name="parity.becomes_chord", bind=True)
def becomes_chord(self: Any, number: int) -> Any:
    return self.replace(chord([add.s(each, 1) for each in range(number)], body.s()))


@shared_task(name="parity.becomes_group", bind=True)
def becomes_group(self: Any, number: int) -> Any:
    return self.replace(group(add.s(each, 1) for each in range(number)))


@shared_task(name="parity.becomes_chain", bind=True)
def becomes_chain(self: Any, release: str) -> Any:
    return self.replace(counts_up.s(0, "link", release) | echo.s())


@shared_task(name="parity.becomes", bind=True)
def becomes(self: Any, canvas: Any) -> Any:
    """Be replaced by what the test says, which is a signature as JSON."""
    return self.replace(self.app.signature(canvas))


# -- each waits for the test, and what follows then is sent while Postgres is away


def wait_first() -> None:
    note("first")
    wait_for_file("go")


@shared_task(name="parity.first")
def first(value: int = 0) -> int:
    wait_first()
    return value + 1


@shared_task(name="parity.first_ignored", ignore_result=True)
def first_ignored() -> int:
    wait_first()
    return 1


@shared_task(name="parity.then")
def then(value: Any) -> Any:
    note("then", repr(value))
    return value


@shared_task(name="parity.later_retries", bind=True, max_retries=3)
def later_retries(self: Any) -> str:
    if self.request.retries == 0:
        wait_first()
        raise self.retry(countdown=0)
    note("then")
    return "again"


@shared_task(
    name="parity.later_retries_itself",
    bind=True,
    autoretry_for=(ValueError,),
    max_retries=3,
    default_retry_delay=0,
)
def later_retries_itself(self: Any) -> str:
    if self.request.retries == 0:
        wait_first()
        raise ValueError("once more")
    note("then")
    return "again"


@job("parity.later_handled", retry=RetryPolicy(max_attempts=3, first=timedelta(milliseconds=10)))
def later_handled(ctx: JobContext, data: dict[str, Any]) -> str:
    if ctx.attempt == 1:
        wait_first()
        raise ValueError("once more")
    note("then")
    return "again"


@shared_task(name="parity.later_replaced", bind=True)
def later_replaced(self: Any) -> Any:
    wait_first()
    return self.replace(then.s("replaced"))


@shared_task(name="parity.later_a_chain", bind=True)
def later_a_chain(self: Any) -> Any:
    wait_first()
    return self.replace(then.s("chained") | echo.s())


@job("parity.late_child")
def late_child(ctx: JobContext, data: dict[str, Any]) -> None:
    note("then")


@job("parity.later_a_parent", retry=RetryPolicy(max_attempts=1))
def later_a_parent(ctx: JobContext, data: dict[str, Any]) -> Any:
    wait_first()
    return ctx.fan_out("parity.late_child", [{"n": 1}, {"n": 2}])


@shared_task(name="parity.told_of")
def told_of(request: Any, error: Any, traceback: Any) -> None:
    """An error callback that is called where the error is."""
    note("told_of")


@shared_task(name="parity.old_style")
def old_style(task_id: str) -> str:
    """An error callback that is a job of its own."""
    note("old_style", task_id)
    return task_id


@shared_task(name="parity.retries_once", bind=True, max_retries=3)
def retries_once(self: Any, countdown: float) -> str:
    if note("retries_once") == 1:
        raise self.retry(countdown=countdown)
    return "again"


@shared_task(name="parity.early_add", acks_late=False)
def early_add(x: int, y: int) -> int:
    note("early_add")
    return x + y
