"""Which rules a message comes under: the caller's, else those set at run time, else the task's own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobbridge.app.publish.rules.run_time import merged, run_time_rules
from jobbridge.core.handlers import handler_of
from jobbridge.core.rules.limits import KEY_LIMIT, FleetRule, Per, concurrency_rules, rate_rules
from jobbridge.core.rules.unique import unique_rule
from jobbridge.errors import UnsupportedOption
from jobbridge.store.rules.holds import Hold

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.options import JobOptions
    from jobbridge.core.keys import TenantId

#: Where a task has its rate across the fleet; `rate_limit` is Celery's, of each worker.
FLEET_RATE = "fleet_rate_limit"


def with_fleet_rate(options: dict[str, Any]) -> dict[str, Any]:
    """Tell the rate across the fleet of a task's options from Celery's, which is a text or a number.

    Raises:
        UnsupportedOption: A rule is none.
    """
    told = dict(options)
    if not isinstance(told.get("rate_limit"), str | int | float | None):
        told[FLEET_RATE] = told.pop("rate_limit")
    concurrency_rules(told.get("concurrency"))
    rate_rules(told.get(FLEET_RATE))
    for option in ("unique", "throttle", "debounce"):
        unique_rule(option, told.get(option))
    return told


def rules_of(
    app: Celery, task: Any, name: str, options: JobOptions, tenant: TenantId, queue: str, body: Any
) -> tuple[Hold, ...]:
    """Give the rules of a new job, as they hold it: none for most.

    Args:
        app: Whose job.
        task: The task if it is known here.
        name: Of the task.
        options: The caller's.
        tenant: Whose job.
        queue: Where it is sent to.
        body: Arguments, and what follows.

    Raises:
        UnsupportedOption: A rule's key cannot be made of the arguments.
    """
    rules = merged(_rules_of(app, task, name, options), run_time_rules(app).of(name, queue))
    return tuple(_hold(rule, task, name, queue=queue, tenant=tenant, body=body) for rule in rules)


def is_ruled(app: Celery, task: Any, name: str, options: JobOptions) -> bool:
    """Whether there is any rule for such a message, but for what is set at run time."""
    return bool(_rules_of(app, task, name, options))


def declared_option(app: Celery, task: Any, name: str, option: str) -> Any:
    """Give what is said of a task: by the setting `jobbridge_rules`, else by the task itself."""
    told = (app.conf.get("jobbridge_rules") or {}).get(name) or {}
    if option in told:
        return told[option]
    return getattr(task, FLEET_RATE if option == "rate_limit" else option, None)


def _rules_of(app: Celery, task: Any, name: str, options: JobOptions) -> tuple[FleetRule, ...]:
    concurrency, rate = options.concurrency, options.rate_limit
    if concurrency is None:
        concurrency = declared_option(app, task, name, "concurrency")
    if rate is None:
        rate = declared_option(app, task, name, "rate_limit")
    if concurrency is None and rate is None:
        return ()
    return concurrency_rules(concurrency) + rate_rules(rate)


def _hold(rule: FleetRule, task: Any, name: str, *, queue: str, tenant: TenantId, body: Any) -> Hold:
    args, kwargs = tuple(body[0] or ()), dict(body[1] or {})
    key = made_key(rule.key, task, f"{name!r}'s {rule.kind}", args, kwargs) if rule.per is Per.KEY else None
    return Hold(
        rule=rule.name_for(task=name, queue=queue, tenant=tenant, key=key),
        rank=rule.rank,
        kind=rule.kind.value,
        allowed=rule.allowed,
        period=rule.period,
        is_fair=rule.is_fair,
        ageing=rule.ageing,
    )


def made_key(key: object, task: Any, of: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Make a rule's key of the task's arguments.

    Args:
        key: Text, in which `{name}` is an argument, or a function of the arguments.
        task: The task if it is known here.
        of: Whose rule it is, for people.
        args: By position.
        kwargs: By name.

    Raises:
        UnsupportedOption: That cannot be done, or gives no key.
    """
    try:
        made = str(key(*args, **kwargs) if callable(key) else key)
        if not callable(key) and "{" in made:
            made = made.format_map(named_arguments(task, args, kwargs))
    except Exception as error:
        raise UnsupportedOption(
            f"The key of {of} cannot be made of its arguments: {error!r}.",
            hint="Name arguments of the task in it, as in key='{customer_id}'.",
        ) from error
    if not 1 <= len(made) <= KEY_LIMIT or "\x00" in made:
        raise UnsupportedOption(
            f"The key of {of} is {made[:60]!r}.",
            hint=f"Make it text of 1 to {KEY_LIMIT} characters without NUL.",
        )
    return made


def named_arguments(task: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Give a task's arguments by name; of a handler the fields of its data."""
    if handler_of(task) is not None:
        data = args[0] if args else {}
        return dict(data) if isinstance(data, Mapping) else dict(getattr(data, "__dict__", {}))
    if not args or task is None:
        return dict(kwargs)
    bound = inspect.signature(task.run).bind_partial(*args, **kwargs)
    bound.apply_defaults()
    return {**bound.arguments, **bound.arguments.get("kwargs", {})}
