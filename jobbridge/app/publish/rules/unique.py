"""The key that a message is unique by, made of its task and arguments."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kombu.utils import json as kombu_json

from jobbridge.app.publish.rules.declared import declared_option, made_key, named_arguments
from jobbridge.core.enqueue import SINGLETON_KEY_LIMIT
from jobbridge.core.handlers import handler_of
from jobbridge.core.rules.unique import UniqueRule, unique_rule
from jobbridge.errors import UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.options import JobOptions

OPTIONS = ("unique", "throttle", "debounce")


def unique_by(
    app: Celery, task: Any, name: str, options: JobOptions, body: Any, headers: dict[str, Any]
) -> tuple[UniqueRule | None, JobOptions]:
    """Tell by what a new job is unique, and give its options with the key that this makes of its arguments.

    Args:
        app: Whose job.
        task: The task if it is known here.
        name: Of the task.
        options: The caller's.
        body: Arguments, and what follows; not yet serialized.
        headers: Of the message; one that is to wait is given its time here.

    Raises:
        UnsupportedOption: It cannot be unique so.
    """
    rule = unique_of(app, task, name, options)
    if rule is None:
        return None, options
    options = with_key(rule, task, name, options, body)
    if rule.wait is not None and headers.get("eta") is None:
        headers["eta"] = (datetime.now(UTC) + rule.wait).isoformat()
    return rule, options


def unique_of(app: Celery, task: Any, name: str, options: JobOptions) -> UniqueRule | None:
    """Give by what a message is unique: the caller's word before the task's; None: it is not.

    Raises:
        UnsupportedOption: It cannot be so, or by two things at once.
    """
    given = {option: value for option in OPTIONS if (value := getattr(options, option)) is not None}
    if given and options.singleton_key is not None:
        raise UnsupportedOption(
            f"{name!r} is sent with a singleton_key and {', '.join(given)}.", hint="Give one of them."
        )
    if options.singleton_key is not None:
        return None
    told = given or {option: declared_option(app, task, name, option) for option in OPTIONS}
    rules = [rule for option, value in told.items() if (rule := unique_rule(option, value)) is not None]
    if len(rules) > 1:
        raise UnsupportedOption(
            f"{name!r} has {' and '.join(rule.option for rule in rules)}.", hint="Give it one of them."
        )
    return rules[0] if rules else None


def with_key(rule: UniqueRule, task: Any, name: str, options: JobOptions, body: Any) -> JobOptions:
    """Give the options with the singleton key that the rule makes of the arguments.

    Raises:
        UnsupportedOption: It cannot be made of them.
    """
    args, kwargs = tuple(body[0] or ()), dict(body[1] or {})
    if rule.key is not None:
        what = made_key(rule.key, task, f"{name!r}'s {rule.option}", args, kwargs)
    elif rule.by == "task":
        what = ""
    else:
        what = _digest(_chosen(rule, task, name, args, kwargs))
    key = f"{rule.option} {name} {what}".rstrip()
    if len(key) > SINGLETON_KEY_LIMIT:
        key = f"{rule.option} {_digest(key)}"
    return replace(options, singleton_key=key, singleton_policy=rule.policy)


def _chosen(rule: UniqueRule, task: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if handler_of(task) is None and (task is None or (rule.by == "args" and not args)):
        named: Mapping[str, Any] = kwargs
        if args:
            return [args, kwargs] if rule.by == "args" else _named(rule, name, named)
    else:
        named = named_arguments(task, args, kwargs)
    return named if rule.by == "args" else _named(rule, name, named)


def _named(rule: UniqueRule, name: str, named: Mapping[str, Any]) -> dict[str, Any]:
    if missing := [each for each in rule.by if each not in named]:
        raise UnsupportedOption(
            f"{name!r} is unique by {missing[0]!r}, which is no argument of this call.",
            hint=f"Its arguments are {', '.join(map(repr, named)) or 'none'}.",
        )
    return {each: named[each] for each in rule.by}


def _digest(value: Any) -> str:
    text = value if isinstance(value, str) else kombu_json.dumps(value, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
