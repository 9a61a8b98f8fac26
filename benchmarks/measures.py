"""What is measured, in which unit, and what issue and documentation compare it with."""

from __future__ import annotations

from dataclasses import dataclass

OURS, UNTRACKED = "jobbridge", "jobbridge_untracked"
LIGHT, BARE, FIVE = "jobbridge_light", "temporal_bare", "temporal_five"
REDIS, RABBITMQ, CONFIRM, SQLA = "celery_redis", "celery_rabbitmq", "celery_rabbitmq_confirm", "celery_sqla"

#: Measure: unit. `latest.json` has no others.
UNITS = {
    "publish": "jobs/s",
    "publish_bulk": "jobs/s",
    "drain": "jobs/s",
    "drain_tracked": "jobs/s",
    "drain_by_100": "jobs/s",
    "latency_p50": "ms",
    "latency_p99": "ms",
    "get_p50": "ms",
    "get30_p50": "ms",
    "chord100": "s",
    "group1000": "s",
    "memory": "MB",
    "start": "s",
    "backlog_1k": "jobs/s",
    "backlog_100k": "jobs/s",
    "backlog_1m": "jobs/s",
    "finished_1m": "jobs/s",
    "chord1000": "s",
    "chord_part_growth": "times",
    "temporal_drain": "jobs/s",
    "temporal_cpu": "ms",
    "temporal_cpu_worker": "ms",
    "temporal_publish": "jobs/s",
    "temporal_publish50": "jobs/s",
    "temporal_latency_p50": "ms",
    "temporal_get30_p50": "ms",
    "temporal_chord100": "s",
    "temporal_group1000": "s",
}


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How much of each: jobs, unless it says otherwise."""

    publish: int = 2000
    bulk: int = 20_000
    drain: int = 3000
    latency: int = 250
    answers: int = 60
    chord: int = 100  # parts
    group: int = 1000
    large_chord: int = 1000  # parts
    largest_chord: int = 5000  # parts
    backlogs: tuple[tuple[str, int], ...] = (
        ("backlog_1k", 1000),
        ("backlog_100k", 100_000),
        ("backlog_1m", 1_000_000),
    )
    finished: int = 1_000_000
    temporal_drain: int = 600
    temporal_publish: int = 300
    temporal_publish50: int = 600
    temporal_latency: int = 50


#: For a test: that everything works, not how fast.
SMALL = Amounts(
    publish=30,
    bulk=60,
    drain=40,
    latency=15,
    answers=8,
    chord=10,
    group=30,
    large_chord=12,
    largest_chord=15,
    backlogs=(("backlog_1k", 50),),
    finished=50,
    temporal_drain=20,
    temporal_publish=10,
    temporal_publish50=20,
    temporal_latency=5,
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One line of the table: a measure of ours against another.

    Args:
        text: What is compared.
        measure: Ours.
        system: Which of ours.
        against: The other measure and system; no system: the bound is for the number itself.
        bound: The ratio that is asked for.
        is_most: Whether the bound is an upper one.
    """

    text: str
    measure: str
    system: str
    against: tuple[str, str] | None
    bound: float
    is_most: bool = False


def _at_least(
    text: str, measure: str, against: tuple[str, str], bound: float, *, system: str = OURS
) -> Comparison:
    return Comparison(text=text, measure=measure, system=system, against=against, bound=bound)


def _at_most(text: str, measure: str, against: tuple[str, str] | None, bound: float) -> Comparison:
    return Comparison(text=text, measure=measure, system=OURS, against=against, bound=bound, is_most=True)


COMPARISONS = (
    _at_least("publish : bare INSERT + commit", "publish", ("publish", "limit"), 0.7),
    _at_least("publish : RabbitMQ, confirmed", "publish", ("publish", CONFIRM), 1.0),
    _at_least("publish : procrastinate", "publish", ("publish", "procrastinate"), 1.0),
    _at_least("publish : potatoq", "publish", ("publish", "potatoq"), 1.0),
    _at_least("publish : pg-boss", "publish", ("publish", "pgboss"), 1.0),
    _at_least("publish : SQLAlchemy transport", "publish", ("publish", SQLA), 1.0),
    _at_least("publish in bulk : one by one", "publish_bulk", ("publish", OURS), 8.0),
    _at_least("drain, untracked : RabbitMQ", "drain", ("drain", RABBITMQ), 1.0, system=UNTRACKED),
    _at_least("drain : Redis", "drain_tracked", ("drain", REDIS), 1.2),
    _at_least("drain : potatoq", "drain_tracked", ("drain", "potatoq"), 1.5),
    _at_least("drain : RabbitMQ (aim)", "drain_tracked", ("drain", RABBITMQ), 0.8),
    _at_most("latency p50 : Redis", "latency_p50", ("latency_p50", REDIS), 1.3),
    _at_most("latency p99 : Redis", "latency_p99", ("latency_p99", REDIS), 1.3),
    _at_most("get() of a no-op : Redis", "get_p50", ("get_p50", REDIS), 1.3),
    _at_most("get() of 30 ms : Redis", "get30_p50", ("get30_p50", REDIS), 1.3),
    _at_most("chord of 100 : Redis", "chord100", ("chord100", REDIS), 1.2),
    _at_most("group(1000) published : Redis", "group1000", ("group1000", REDIS), 0.5),
    _at_least("drain at 1,000,000 waiting : at 1,000", "backlog_1m", ("backlog_1k", OURS), 0.95),
    _at_least("drain after 1,000,000 finished : at 1,000", "finished_1m", ("backlog_1k", OURS), 0.95),
    _at_most("chord of 1,000 : Redis", "chord1000", ("chord1000", REDIS), 1.2),
    _at_most("cost of a chord's part, 5,000 : 100", "chord_part_growth", None, 1.1),
    _at_most("idle memory : Redis", "memory", ("memory", REDIS), 1.1),
    _at_least("on Temporal, drain : one activity", "temporal_drain", ("temporal_drain", BARE), 0.9),
    _at_least("on Temporal, drain : five activities", "temporal_drain", ("temporal_drain", FIVE), 2.0),
    _at_least("light, drain : one activity", "temporal_drain", ("temporal_drain", BARE), 1.4, system=LIGHT),
    _at_most(
        "on Temporal, latency p50 : one activity",
        "temporal_latency_p50",
        ("temporal_latency_p50", BARE),
        1.25,
    ),
    _at_least("on Temporal, publish : the client", "temporal_publish", ("temporal_publish", BARE), 0.85),
    _at_least(
        "on Temporal, 50 callers : the client", "temporal_publish50", ("temporal_publish50", BARE), 0.9
    ),
    _at_most(
        "on Temporal, group(1000) : the client", "temporal_group1000", ("temporal_group1000", BARE), 1.2
    ),
    _at_most("on Temporal, chord of 100 : on Celery", "temporal_chord100", ("chord100", OURS), 2.2),
)
