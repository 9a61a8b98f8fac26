"""What is set at run time, for all jobs of a task or a queue; and how the rules stand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString

from jobbridge.core.rules.limits import FleetRule, Per, RuleKind
from jobbridge.errors import UnsupportedOption
from jobbridge.store.database import Database
from jobbridge.store.fetch import all_rows, first_tuple
from jobbridge.store.values import json_text

IS_THERE: LiteralString = "SELECT to_regclass('public.job_rules') IS NOT NULL"

RULES: LiteralString = """
SELECT kind, per, target, allowed, period, is_fair, ageing, weights, set_at
FROM public.job_rules ORDER BY name LIMIT 10000
"""

SET: LiteralString = """
INSERT INTO public.job_rules (name, kind, per, target, allowed, period, is_fair, ageing, weights)
VALUES (%(name)s, %(kind)s, %(per)s, %(target)s, %(allowed)s, %(period)s, %(is_fair)s, %(ageing)s, %(weights)s::jsonb)
ON CONFLICT (name) DO UPDATE
SET allowed = excluded.allowed, period = excluded.period, is_fair = excluded.is_fair, ageing = excluded.ageing,
    weights = excluded.weights, set_at = clock_timestamp()
"""

#: All that it counts by, and that held a job already: it counts from now on, and by the names that it has.
SET_LIMITS: LiteralString = """
UPDATE public.job_limits AS known
SET allowed = %(allowed)s, period = %(period)s, is_fair = %(is_fair)s, weights = %(weights)s::jsonb, is_set = true,
    updated_at = clock_timestamp()
WHERE known.rule = %(rule)s OR %(begins)s::text IS NOT NULL AND starts_with(known.rule, %(begins)s::text)
"""

#: Of the whole queue at once, so that its weights hold.
SET_LIMIT: LiteralString = """
INSERT INTO public.job_limits (rule, rank, kind, allowed, period, is_fair, weights, is_set)
VALUES (%(rule)s, %(rank)s, %(kind)s, %(allowed)s, %(period)s, %(is_fair)s, %(weights)s::jsonb, true)
ON CONFLICT (rule) DO NOTHING
"""

#: Of what waits: places are given when the rule is looked at.
SET_ORDER: LiteralString = """
UPDATE public.job_holds AS hold
SET is_fair = %(is_fair)s, place = CASE WHEN NOT %(is_fair)s THEN 0 END
WHERE (hold.rule = %(rule)s OR %(begins)s::text IS NOT NULL AND starts_with(hold.rule, %(begins)s::text))
  AND hold.state IN ('waiting', 'passed', 'later') AND hold.is_fair <> %(is_fair)s
"""

LOOK: LiteralString = """
INSERT INTO public.job_rule_changes (transaction, rank, rule)
SELECT pg_current_xact_id()::text::bigint, known.rank, known.rule
FROM public.job_limits AS known
WHERE known.rule = %(rule)s OR %(begins)s::text IS NOT NULL AND starts_with(known.rule, %(begins)s::text)
ON CONFLICT DO NOTHING
"""

REMOVE: LiteralString = "DELETE FROM public.job_rules WHERE name = %(name)s"

#: What the code declares counts again, with the next job that is sent; until then, what was set.
UNSET: LiteralString = """
UPDATE public.job_limits AS known
SET is_set = false, weights = NULL, updated_at = clock_timestamp()
WHERE known.rule = %(rule)s OR %(begins)s::text IS NOT NULL AND starts_with(known.rule, %(begins)s::text)
"""

LIMITS: LiteralString = """
SELECT known.rule, known.kind, known.allowed, known.period, known.is_fair, known.is_set, known.next_at,
    (SELECT count(*) FROM public.job_holds AS hold WHERE hold.rule = known.rule AND hold.state = 'running') AS running,
    (SELECT count(*) FROM (
        SELECT FROM public.job_holds AS hold WHERE hold.rule = known.rule AND hold.state = 'waiting' LIMIT 10000
    ) AS counted) AS waiting
FROM public.job_limits AS known
ORDER BY known.rule
LIMIT %(limit)s
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetRule:
    """A rule that was set at run time.

    Attributes:
        target: The task's name; of a rule per queue the queue's.
        weights: Of tenants, where the rule is fair; 1 where there is none.
    """

    rule: FleetRule
    target: str
    weights: Mapping[str, float]
    set_at: datetime | None = None

    @property
    def name(self) -> str:
        return f"{self.rule.kind} per {self.rule.per} of {self.target}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """How a rule stands, for what it counts together.

    Attributes:
        running: How many jobs it let through that have not ended; of a rate, also those that have their instant.
        waiting: How many wait for it; 10,000: or more.
        is_set: At run time.
        next_at: Of a rate: the first instant that is free.
    """

    rule: str
    kind: str
    allowed: int
    period: timedelta | None
    is_fair: bool
    is_set: bool
    next_at: datetime | None
    running: int
    waiting: int


class RuleStore:
    """Sets rules at run time, and tells how they stand.

    Args:
        database: Whose jobs.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, rule: FleetRule, target: str, weights: Mapping[str, float] | None = None) -> SetRule:
        """Set a rule for a task or a queue: what waits for it is looked at in the same transaction.

        Args:
            rule: Per task, tenant or queue.
            target: The task's name, or the queue's.
            weights: Of tenants, where it is fair.

        Raises:
            UnsupportedOption: It is per key, which only code can make of arguments; or weights do not fit.
        """
        if rule.per is Per.KEY:
            raise UnsupportedOption(
                "A rule per key cannot be set at run time: its key is made of a job's arguments.",
                hint="Declare it on the task.",
            )
        if weights and (not rule.is_fair or any(weight <= 0 for weight in weights.values())):
            raise UnsupportedOption(
                f"The weights are {dict(weights)}.", hint="Give tenants of a fair rule numbers above 0."
            )
        told = SetRule(rule=rule, target=target, weights=dict(weights or {}))
        params = _params(told)
        with self._database.transaction() as own:
            own.execute(SET, params)
            if rule.per is not Per.TENANT:
                own.execute(SET_LIMIT, params)
            own.execute(SET_LIMITS, params)
            own.execute(SET_ORDER, params)
            own.execute(LOOK, params)
        return told

    def remove(self, kind: RuleKind, per: Per, target: str) -> bool:
        """Take back what was set; false: nothing was."""
        told = SetRule(rule=FleetRule(kind=kind, allowed=0, per=per), target=target, weights={})
        params = _params(told)
        with self._database.transaction() as own:
            was_set = own.execute(REMOVE, params).rowcount > 0
            if was_set:
                own.execute(UNSET, params)
        return was_set

    def all(self) -> list[SetRule]:
        """Give what is set at run time; nothing where the tables are older than rules."""

        def read(own: Any) -> list[SetRule]:
            if first_tuple(own, IS_THERE) == (False,):
                return []
            return all_rows(own, _set_rule, RULES)

        return self._database.run(read)

    def limits(self, *, limit: int = 1000) -> list[Limit]:
        """Tell how rules stand, by their names."""
        return self._database.run(lambda own: all_rows(own, Limit, LIMITS, {"limit": limit}))


def _params(told: SetRule) -> dict[str, Any]:
    rule = told.rule
    names = {"task": told.target, "queue": told.target}
    begins = f"{rule.kind} task {told.target} tenant " if rule.per is Per.TENANT else None
    return {
        "name": told.name,
        "kind": rule.kind.value,
        "per": rule.per.value,
        "target": told.target,
        "rank": rule.rank,
        "allowed": rule.allowed,
        "period": rule.period,
        "is_fair": rule.is_fair,
        "ageing": rule.ageing,
        "weights": json_text(dict(told.weights)) if told.weights else None,
        "rule": rule.name_for(**names, tenant="") if begins is None else "",
        "begins": begins,
    }


def _set_rule(*, kind: str, per: str, target: str, weights: Any, set_at: datetime, **columns: Any) -> SetRule:
    rule = FleetRule(kind=RuleKind(kind), per=Per(per), **columns)
    return SetRule(rule=rule, target=target, weights=weights or {}, set_at=set_at)
