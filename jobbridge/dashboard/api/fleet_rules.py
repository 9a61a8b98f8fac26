"""Rules across the fleet: what is set at run time, and how they stand; set and remove."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import Query
from pydantic import Field

from jobbridge.core.access import Role
from jobbridge.core.rules.durations import LONGEST
from jobbridge.core.rules.limits import FleetRule, Per, RuleKind, concurrency_rules, rate_rules
from jobbridge.dashboard.access.bodies import STORABLE
from jobbridge.dashboard.access.request_context import POST, storable
from jobbridge.dashboard.api.documents.responses import Answer, Exact
from jobbridge.dashboard.api.rules import PREFIX, ApiRule, Asked
from jobbridge.errors import JobBridgeError
from jobbridge.store.rules.fleet import RuleStore, SetRule


class RunTimeRule(Answer):
    """A rule that was set at run time, for a task, its tenants, or a queue."""

    kind: Literal["concurrency", "rate_limit"]
    per: Literal["task", "tenant", "queue"]
    target: str = Field(description="The task's name, or the queue's.")
    allowed: int = Field(description="So many at once, or in the period.")
    period_seconds: float | None
    fair: bool
    weights: dict[str, float] = Field(description="Of tenants; 1 where there is none.")
    ageing_seconds: float | None
    set_at: datetime | None


class RuleLimit(Answer):
    """How a rule stands, for what it counts together."""

    rule: str
    kind: str
    allowed: int
    period_seconds: float | None
    fair: bool
    is_set: bool = Field(description="At run time.")
    running: int = Field(description="Jobs that it let through, and that have not ended.")
    waiting: int = Field(description="Jobs that wait for it; 10000: or more.")
    next_at: datetime | None = Field(description="Of a rate: the first instant that is free.")


class FleetRules(Answer):
    """What is set, and how the rules stand that hold jobs, or held some lately."""

    rules: list[RunTimeRule]
    limits: list[RuleLimit]


class SetFleetRule(Exact):
    """A rule to be set."""

    kind: Literal["concurrency", "rate_limit"]
    target: str = Field(min_length=1, max_length=255, json_schema_extra={**STORABLE})
    limit: int | str = Field(description="A number; of a rate how many in which time, as in `100/s`.")
    per: Literal["task", "tenant", "queue"] = "task"
    fair: bool = False
    weights: dict[str, float] = Field(default_factory=dict)
    ageing: float | None = Field(
        None,
        gt=0,
        le=LONGEST.total_seconds(),
        description="Seconds after which a job counts as one priority more.",
    )


class RemoveFleetRule(Exact):
    """Which rule."""

    kind: Literal["concurrency", "rate_limit"]
    target: str = Field(min_length=1, max_length=255, json_schema_extra={**STORABLE})
    per: Literal["task", "tenant", "queue"] = "task"


class RuleRemoved(Answer):
    """Whether there was such a rule."""

    removed: bool


def list_rules(context: Asked, limit: Annotated[int, Query(ge=1, le=1000)] = 1000) -> FleetRules:
    """Give what is set at run time, and how the rules stand that hold jobs, or held some lately."""
    store = RuleStore(context.app.database)
    limits = [
        RuleLimit(
            rule=each.rule,
            kind=each.kind,
            allowed=each.allowed,
            period_seconds=None if each.period is None else each.period.total_seconds(),
            fair=each.is_fair,
            is_set=each.is_set,
            running=each.running,
            waiting=each.waiting,
            next_at=each.next_at,
        )
        for each in store.limits(limit=limit)
    ]
    return FleetRules(rules=[_told(each) for each in store.all()], limits=limits)


def set_rule(context: Asked, asked: SetFleetRule) -> RunTimeRule:
    """Set a rule: it goes before what the code declares, also for what waits already."""
    target = storable(asked.target)
    try:
        done = RuleStore(context.app.database).set(_rule(asked), target, asked.weights)
    except JobBridgeError as error:
        context.note("set rule", outcome="refused", subject=target[:200], reason=str(error))
        raise
    context.note("set rule", outcome="done", subject=done.name[:200])
    return _told(done)


def remove_rule(context: Asked, asked: RemoveFleetRule) -> RuleRemoved:
    """Take back what was set: what the code declares counts again, with the next job that is sent."""
    target = storable(asked.target)
    removed = RuleStore(context.app.database).remove(RuleKind(asked.kind), Per(asked.per), target)
    context.note("remove rule", outcome="done" if removed else "was not set", subject=target[:200])
    return RuleRemoved(removed=removed)


def _rule(asked: SetFleetRule) -> FleetRule:
    read = concurrency_rules if asked.kind == "concurrency" else rate_rules
    told = {"limit": asked.limit, "per": asked.per, "fair": asked.fair, "ageing": asked.ageing}
    (rule,) = read({name: value for name, value in told.items() if value is not None})
    return rule


def _told(each: SetRule) -> RunTimeRule:
    rule = each.rule
    return RunTimeRule.model_validate(
        {
            "kind": rule.kind.value,
            "per": rule.per.value,
            "target": each.target,
            "allowed": rule.allowed,
            "period_seconds": None if rule.period is None else rule.period.total_seconds(),
            "fair": rule.is_fair,
            "weights": dict(each.weights),
            "ageing_seconds": None if rule.ageing is None else rule.ageing.total_seconds(),
            "set_at": each.set_at,
        }
    )


_TAG = "rules across the fleet"

RULES = (
    ApiRule(f"{PREFIX}/rules", "api_rules", list_rules, Role.VIEWER, is_global=True, tag=_TAG),
    ApiRule(
        f"{PREFIX}/rules", "api_set_rule", set_rule, Role.OPERATOR, methods=POST, is_global=True, tag=_TAG
    ),
    ApiRule(
        f"{PREFIX}/rules/remove",
        "api_remove_rule",
        remove_rule,
        Role.OPERATOR,
        methods=POST,
        is_global=True,
        tag=_TAG,
    ),
)
