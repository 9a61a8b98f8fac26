"""A runner's options, told apart into the parent's and its children's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from jobbridge.app.options import engine_named
from jobbridge.app.publish.commands import JobHandle
from jobbridge.core.fanout import FanOut
from jobbridge.core.keys import Engine
from jobbridge.runners.types import ScheduleOptions

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


def send_fan_out(
    app: Celery,
    name: str,
    items: Iterable[Any],
    chosen: ScheduleOptions,
    default_engine: Engine,
    *,
    concurrency: int,
    key: Callable[[Any], str] | None,
) -> JobHandle:
    """Send a parent and its children; raises as `jobbridge.app.fanout.parent_task.fan_out`."""
    engine = None if chosen.engine is None else engine_named(chosen.engine).value
    childrens = {"queue": chosen.queue, "priority": chosen.priority, "engine": engine}
    wanted = FanOut(
        task=name,
        items=items,
        concurrency=concurrency,
        key=key,
        options={option: value for option, value in childrens.items() if value is not None},
    )
    handle: JobHandle = app.fan_out(
        wanted,
        tenant=chosen.tenant,
        engine=chosen.engine,
        default_engine=default_engine,
        run_at=chosen.run_at,
        expires=chosen.expires,
        user_id=chosen.user_id,
        metadata=None if chosen.metadata is None else dict(chosen.metadata),
        singleton_key=chosen.singleton_key,
        singleton_policy=chosen.singleton_policy,
    )
    return handle
