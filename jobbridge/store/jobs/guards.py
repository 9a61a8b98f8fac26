"""The table of the status machine as SQL: what stands behind WHERE, and behind `status =`, in `transitions`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import LiteralString

from jobbridge.core.events import JobEvent
from jobbridge.core.machine import MOVES, Guard, Target
from jobbridge.core.status import OPEN, JobStatus
from jobbridge.store.statuses import FINAL_STATUSES, WAITING_STATUSES, listed

#: A message of the broker comes again only when its lease has ended. Temporal gives a job to another worker as soon as
#: it has lost sight of the first, which may live and have begun meanwhile: whether that is gone is looked up between
#: two tries (`admission.gone_holder`), for the broker's tables know it, and no statement is to join those with `jobs`.
_IS_LET_GO: LiteralString = """(
            %(engine)s <> 'temporal' OR worker_number IS NULL OR worker_number = %(worker_number)s
            OR worker_number = ANY(%(gone)s::bigint[]))"""

_GUARDS: Mapping[Guard, LiteralString] = {
    Guard.ATTEMPT: "job.attempt = %(attempt)s::integer",
    Guard.NO_ATTEMPT: "%(attempt)s::integer IS NULL",
    Guard.DELIVERY: "job.delivery = %(delivery)s",
    Guard.DELIVERY_IF_TOLD: "(%(delivery)s::uuid IS NULL OR job.delivery = %(delivery)s)",
    Guard.NEW_DELIVERY: "job.delivery IS DISTINCT FROM %(delivery)s",
    Guard.NO_DELIVERY: "job.delivery IS NULL",
    Guard.SENT_ANEW: "%(continues)s::integer IS NULL",
    Guard.SENT_BY_ATTEMPT: "job.attempt = %(continues)s::integer",
    Guard.WAITING_AS_TOLD: f"""(%(waiting_at)s::integer IS NULL
            OR (job.status IN ({WAITING_STATUSES}) AND job.attempt = %(waiting_at)s::integer))""",
    Guard.MAY_START: """(%(delivery)s::uuid IS NULL OR job.delivery = %(delivery)s
            OR (job.delivery IS NULL AND job.attempt = 0))""",
    Guard.MAY_TAKE_OVER: f"""(job.delivery = %(delivery)s OR (%(delivery)s::uuid IS NULL AND %(redelivered)s::boolean))
        AND {_IS_LET_GO}""",
}

_DUE: LiteralString = "CASE WHEN job.run_at > now() THEN 'scheduled' ELSE 'queued' END"
_TARGETS: Mapping[Target, LiteralString] = {
    Target.SAME: "job.status",
    Target.DUE: _DUE,
    Target.SENT: "excluded.status",
    Target.PENDING_OR_DUE: f"""CASE WHEN %(message)s::text IS NOT NULL THEN 'pending'
        WHEN job.status = 'retrying' THEN 'retrying' ELSE {_DUE} END""",
    Target.RETRYING_OR_SENT: "CASE WHEN %(is_retry)s::boolean THEN 'retrying' ELSE excluded.status END",
}


def may(kind: type[JobEvent]) -> LiteralString:
    """Give the condition under which an event of that kind moves a row of `jobs AS job`."""
    moves = MOVES[kind]
    shared = tuple(guard for guard in moves[0].guards if all(guard in move.guards for move in moves))
    sources: dict[tuple[Guard, ...], set[JobStatus]] = defaultdict(set)
    for move in moves:
        sources[tuple(guard for guard in move.guards if guard not in shared)].update(move.sources)
    ways = [_all_of(_at(statuses), *map(_GUARDS.__getitem__, own)) for own, statuses in sources.items()]
    either = ways[0] if len(ways) == 1 else "(\n        (" + ")\n        OR (".join(ways) + ")\n      )"
    return _all_of(either, *map(_GUARDS.__getitem__, shared))


def becomes(kind: type[JobEvent]) -> LiteralString:
    """Give the status that such an event gives a row of `jobs AS job`."""
    moves = MOVES[kind]
    *others, usual = dict.fromkeys(move.target for move in moves)
    cases: list[LiteralString] = [
        f"WHEN {_at(move.sources)} THEN {_target(move.target)}" for move in moves if move.target in others
    ]
    return f"CASE {' '.join(cases)} ELSE {_target(usual)} END" if cases else _target(usual)


def _target(target: JobStatus | Target) -> LiteralString:
    return listed({target}) if isinstance(target, JobStatus) else _TARGETS[target]


def _all_of(*conditions: LiteralString) -> LiteralString:
    return " AND ".join(condition for condition in conditions if condition)


def _at(statuses: Collection[JobStatus]) -> LiteralString:
    """Give the condition that a row is at one of them; empty: it always is."""
    if len(statuses) == len(JobStatus):
        return ""
    if len(statuses) == 1:
        return f"job.status = {listed(statuses)}"
    if set(statuses) == OPEN:
        return f"job.status NOT IN ({FINAL_STATUSES})"
    return f"job.status IN ({listed(statuses)})"
