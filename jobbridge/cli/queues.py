"""`jobbridge queues list|pause|resume`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from jobbridge.cli.audit import by_option, on_record
from jobbridge.cli.common import (
    ago,
    app_option,
    app_option_of_group,
    json_option,
    load_app,
    tell,
    tell_table,
    write_json,
)

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.diagnosis.queues import Waiting

_MOST = 10_000


@click.group("queues")
@app_option_of_group
def command() -> None:
    """List, pause and resume queues, of both engines."""


@command.command("list")
@click.option("--paused", "only_paused", is_flag=True, help="Only those.")
@app_option
@json_option
def list_queues(only_paused: bool, app_name: str | None, as_json: bool) -> None:
    """List the queues that workers serve, that hold messages, that jobs lately used, or that are paused."""
    from jobbridge.diagnosis.queues import look

    app = load_app(app_name)
    found = look(app, app.workers.alive(), limit=_MOST, only_paused=only_paused)
    if as_json:
        write_json(asdict(found))
        return
    rows: list[tuple[str, ...]] = []
    for queue in found.queues:
        paused = str(queue.pause) if queue.pause else ""
        for number, waiting in enumerate(queue.waiting or [None]):
            engine = waiting.engine if waiting else None
            served = sum(of == engine for of, _ in queue.workers) if engine else len(queue.workers)
            rows.append((
                "" if number else queue.name, engine.value if engine else "", _ready(waiting), _later(waiting),
                ago(waiting.oldest_at) if waiting else "", str(served), "" if number else paused,
            ))  # fmt: skip
    columns = ("queue", "engine", "waiting", "not due", "oldest", "workers", "paused")
    tell_table(rows, *columns, empty="There are no such queues.")
    if found.problem:
        click.echo(found.problem, err=True)


def _ready(waiting: Waiting | None) -> str:
    from jobbridge.diagnosis.queues import COUNTED

    if waiting is None or waiting.ready is None:
        return "?"
    return f"{COUNTED:,}+" if waiting.is_more else f"{waiting.ready:,}"


def _later(waiting: Waiting | None) -> str:
    return "" if waiting is None or waiting.later is None else f"{waiting.later:,}"


@command.command("pause")
@click.argument("queue")
@click.option("--note", help="Why; shown in lists and by `explain`.")
@by_option
@app_option
@json_option
def pause(queue: str, note: str | None, by: str | None, app_name: str | None, as_json: bool) -> None:
    """Have no worker take anything new from QUEUE, on either engine. What runs goes on; nothing is lost."""
    from jobbridge.store.workers.queue_pauses import QueuePauses

    app = load_app(app_name)
    with on_record(app, "pause queue", by=by, subject=queue, reason=note) as entry:
        is_new = QueuePauses(app.database).pause(queue, by=by, note=note)
        entry.outcome = "done" if is_new else "was paused before"
    tell(
        as_json,
        {"queue": queue, "paused": True, "changed": is_new, **_warned(app, queue)},
        f"The queue {queue} is paused." if is_new else f"The queue {queue} was paused before.",
    )


@command.command("resume")
@click.argument("queue")
@by_option
@app_option
@json_option
def resume(queue: str, by: str | None, app_name: str | None, as_json: bool) -> None:
    """Let workers take from QUEUE again."""
    from jobbridge.store.workers.queue_pauses import QueuePauses

    app = load_app(app_name)
    with on_record(app, "resume queue", by=by, subject=queue) as entry:
        was_paused = QueuePauses(app.database).resume(queue)
        entry.outcome = "done" if was_paused else "was not paused"
    tell(
        as_json,
        {"queue": queue, "paused": False, "changed": was_paused, **_warned(app, queue)},
        f"The queue {queue} runs again." if was_paused else f"The queue {queue} was not paused.",
    )


def _warned(app: Celery, queue: str) -> dict[str, str]:
    """Warn if there is no such queue, as far as is known; gives what programs are told of it."""
    from jobbridge.diagnosis.queues import why_unknown

    reason = why_unknown(app, app.workers.alive(), queue)
    if reason is None:
        return {}
    click.echo(f"Warning: {reason}", err=True)
    return {"warning": reason}
