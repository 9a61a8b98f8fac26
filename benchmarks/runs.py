"""The runs: what one system does for one or more measures, once. Each checks that what it counts has happened.

A run gives a number for each of its measures. Its workers and senders are new processes, and nobody is timed while they
start, but for `start`.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import psycopg

from benchmarks.ledger import WrongNumber
from benchmarks.measures import OURS, REDIS, Amounts
from benchmarks.stage import Stage, Stages, pss
from benchmarks.systems import BULK, CHORDS, GROUPS, RESULTS, SYSTEMS, System
from tests.support import wait_until

Numbers = dict[str, float]

WARM = 0.2  # of a drain's jobs: a worker's first ones, which it begins with one process
_IDLE_JOBS = 20  # that a worker has run before it is called idle
_STABLE = 0.01  # of its memory, between two looks
_BACKLOG_JOBS = 3000  # that are drained from it


def publish(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Send one by one."""
    with stages.open(system, "publish") as stage:
        answer = stage.send("publish", amounts.publish)
        stage.wait_until_unfinished(answer["sent"])
    return {"publish": amounts.publish / answer["seconds"]}


def publish_bulk(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Send in bulk."""
    with stages.open(system, "publish_bulk") as stage:
        answer = stage.send("publish_bulk", amounts.bulk)
        stage.wait_until_unfinished(answer["sent"])
    return {"publish_bulk": amounts.bulk / answer["seconds"]}


def drain(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Run what waits: the rate from the first fifth's end to the last run."""
    measure = "drain_tracked" if system.name == OURS else "drain"
    with stages.open(system, "drain") as stage:
        if system.kind == "limit":
            return _take(stage, amounts.drain)
        jobs = round(amounts.drain * (1 + WARM))
        stage.send("fill", jobs)
        stage.wait_until_unfinished(jobs)
        stage.start_workers()
        stage.wait_for_runs(jobs)
        stage.wait_until_unfinished(0)
        return {measure: rate([when for _, when in stage.ledger.whole(jobs)], jobs - amounts.drain)}


def latency(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Send to an idle worker: from the call to the first line of the function."""
    with stages.open(system, "latency") as stage:
        stage.start_warm_workers()
        sent = stage.send("latency", amounts.latency)["sent"]
        stage.wait_for_runs(len(sent))
        runs = stage.ledger.whole(len(sent))
        stage.wait_until_unfinished(0)
    warm = len(sent) // 10
    took = sorted(1000 * (when - sent[number]) for number, when in runs if number >= warm)
    if took[0] <= 0:
        raise WrongNumber("a job ran before it was sent")
    return {"latency_p50": quantile(took, 0.5), "latency_p99": quantile(took, 0.99)}


def answers(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Wait for results."""
    with stages.open(system, "answers") as stage:
        stage.start_warm_workers()
        answer = stage.send("answers", amounts.answers)
        stage.wait_until_unfinished(0)
    return {f"{name}_p50": 1000 * statistics.median(answer[name]) for name in ("get", "get30")}


def chord(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Wait for a chord."""
    return {"chord100": _chord(stages, system, amounts.chord)[amounts.chord]}


def group(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Send a group, while nobody runs it."""
    with stages.open(system, "group") as stage:
        answer = stage.send("groups", amounts.group)
        stage.wait_until_unfinished(answer["sent"])
    return {"group1000": answer["seconds"]}


def idle(stages: Stages, system: System, _amounts: Amounts) -> Numbers:
    """Start a worker: how long until it has run a job that waits, and its memory when it has nothing left to do."""
    with stages.open(system, "idle") as stage:
        stage.send("send", _IDLE_JOBS)
        began = stage.start_workers()
        stage.wait_for_runs(_IDLE_JOBS)
        stage.wait_until_unfinished(0)
        first = stage.ledger.whole(_IDLE_JOBS)[0][1]
        return {"start": first - began, "memory": _stable_memory(stage)}


def backlog(stages: Stages, system: System, _amounts: Amounts, *, measure: str, waiting: int) -> Numbers:
    """Run some of many that wait. A small backlog is drained as often as it takes to run as many."""
    took, ran = 0.0, 0
    while ran < min(_BACKLOG_JOBS, 3 * waiting):
        jobs = min(waiting, _BACKLOG_JOBS)
        kept = f"bench_{system.name}_{measure}" if waiting > 10 * jobs else None
        with stages.open(system, measure, kept_as=kept) as stage:
            if not all(count > waiting * 0.9 for count in stage.place.unfinished()):
                stage.send("fill", waiting)
                _vacuum(stage)
            stage.start_workers()
            stage.wait_for_runs(jobs)
            stage.stop()
            runs = stage.ledger.runs()
            stage.ledger.refuse_repeated(runs)
            warm = round(jobs * WARM)
            ran += jobs
            took += runs[jobs - 1][1] - runs[warm - 1][1]
    return {measure: ran * (1 - WARM) / took}


def finished(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Run jobs beside the rows of many that have ended."""
    with stages.open(system, "finished", kept_as=f"bench_{system.name}_finished") as stage:
        jobs = _BACKLOG_JOBS if amounts.finished > _BACKLOG_JOBS else amounts.finished
        if _count_finished(stage) < amounts.finished:
            _finish_one(stage)
            _multiply(stage, amounts.finished)
            _vacuum(stage)
        if (rows := _count_finished(stage)) < amounts.finished:
            raise WrongNumber(f"{rows} jobs have ended, and {amounts.finished} should have")
        stage.ledger.clear()
        stage.send("fill", jobs)
        stage.wait_until_unfinished(jobs)
        stage.start_workers()
        stage.wait_for_runs(jobs)
        stage.wait_until_unfinished(0)
        return {"finished_1m": rate([when for _, when in stage.ledger.whole(jobs)], round(jobs * WARM))}


def large_chord(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Wait for a large chord."""
    return {"chord1000": _chord(stages, system, amounts.large_chord)[amounts.large_chord]}


def chord_growth(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Compare a part's time in the largest chord with that in one of 100."""
    seconds = _chord(stages, system, amounts.largest_chord)
    return {
        "chord_part_growth": (seconds[amounts.largest_chord] / amounts.largest_chord) / (seconds[100] / 100)
    }


@dataclass(frozen=True, kw_only=True)
class Run:
    """One of the above: who takes part, and what it gives.

    Args:
        series: Runs of one series are interleaved; the next one begins when all rounds of it are done.
    """

    measures: tuple[str, ...]
    systems: tuple[str, ...]
    work: Callable[[Stages, System, Amounts], Numbers]
    series: int = 0


def _who_can(ability: str) -> tuple[str, ...]:
    return tuple(name for name, system in SYSTEMS.items() if ability in system.can)


#: Those on Temporal have runs of their own (`temporal_runs`).
_QUEUES = tuple(name for name, system in SYSTEMS.items() if system.server != "temporal")
_WITH_WORKERS = tuple(name for name in _QUEUES if SYSTEMS[name].kind != "limit")


def runs_of(amounts: Amounts) -> list[Run]:
    """Give all runs, in the order of a round."""
    runs = [
        Run(measures=("publish",), systems=_QUEUES, work=publish),
        Run(measures=("publish_bulk",), systems=_who_can(BULK), work=publish_bulk),
        Run(measures=("drain", "drain_tracked", "drain_by_100"), systems=_QUEUES, work=drain),
        Run(measures=("latency_p50", "latency_p99"), systems=_WITH_WORKERS, work=latency),
        Run(measures=("get_p50", "get30_p50"), systems=_who_can(RESULTS), work=answers),
        Run(measures=("chord100",), systems=_who_can(CHORDS), work=chord),
        Run(measures=("group1000",), systems=_who_can(GROUPS), work=group),
        Run(measures=("start", "memory"), systems=_WITH_WORKERS, work=idle),
        Run(measures=("chord1000",), systems=(OURS, REDIS), work=large_chord, series=1),
        Run(measures=("chord_part_growth",), systems=(OURS,), work=chord_growth, series=1),
    ]
    for measure, waiting in amounts.backlogs:
        runs.append(
            Run(
                measures=(measure,),
                systems=(OURS,),
                work=partial(backlog, measure=measure, waiting=waiting),
                series=2,
            )
        )
    runs.append(Run(measures=("finished_1m",), systems=(OURS,), work=finished, series=2))
    return runs


# -- steps


def _take(stage: Stage, amount: int) -> Numbers:
    """Drain without a queue: one by one, then by the hundred."""
    numbers: Numbers = {}
    for measure, step in (("drain", "take"), ("drain_by_100", "take_100")):
        stage.ledger.clear()
        stage.send("fill", amount)
        stage.send(step, amount)
        stage.wait_until_unfinished(0)
        runs = stage.ledger.whole(amount)
        # A hundred are noted at once, when they are taken.
        warm = round(amount * WARM / 100) * 100 or 1
        numbers[measure] = rate([when for _, when in runs], warm)
    return numbers


def _chord(stages: Stages, system: System, size: int) -> dict[int, float]:
    with stages.open(system, f"chord-{size}") as stage:
        stage.start_warm_workers()
        answer = stage.send("chords", size)
        stage.wait_until_unfinished(0)
    return {int(parts): seconds for parts, seconds in answer["seconds"].items()}


def rate(times: list[float], warm: int) -> float:
    """Give runs per second after the first `warm`; they are sorted."""
    return (len(times) - warm) / (times[-1] - times[warm - 1])


def quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def _stable_memory(stage: Stage) -> float:
    before = 0.0

    def settled() -> float | None:
        nonlocal before
        now = pss(stage.workers)
        is_stable = abs(now - before) < _STABLE * now
        before = now
        return now if is_stable else None

    memory = wait_until(settled, timeout=60, every=1.0, message="the memory of a worker stays the same")
    assert memory is not None
    return memory


def _vacuum(stage: Stage) -> None:
    with psycopg.connect(stage.place.database_url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")


def _count_finished(stage: Stage) -> int:
    with psycopg.connect(stage.place.database_url) as connection:
        row = connection.execute("SELECT count(*) FROM public.jobs WHERE completed_at IS NOT NULL").fetchone()
    return int(row[0]) if row else 0


def _finish_one(stage: Stage) -> None:
    """Have one job run, of which the others will be copies."""
    stage.send("send", 1)
    stage.start_workers()
    stage.wait_until_unfinished(0)
    stage.stop()


def _multiply(stage: Stage, rows: int) -> None:
    """Copy the finished job's rows: what a million runs leave, in a minute. The instants are spread over a day."""
    with psycopg.connect(stage.place.database_url) as connection:
        for table, key in (("jobs", "job_id"), ("job_details", "detail_id")):
            names = [
                str(name)
                for (name,) in connection.execute(
                    "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
                    " AND NOT attisdropped AND attidentity = '' AND attgenerated = ''",
                    [f"public.{table}"],
                ).fetchall()
            ]
            values = [_copied(name, key) for name in names]
            statement = (
                f"INSERT INTO public.{table} ({', '.join(names)}) SELECT {', '.join(values)}"  # noqa: S608  # constants
                f" FROM public.{table} AS original, generate_series(1, {rows}) AS copy"
            )
            connection.execute(statement.encode())


def _copied(name: str, key: str) -> str:
    seed = "md5(copy::text || 'bench')::uuid"  # of one job, in both tables
    if name == "job_id":
        return seed
    if name == key:
        return "gen_random_uuid()"
    if name == "task_id":
        return f"({seed})::text"
    if name in ("created_at", "updated_at", "completed_at", "processed_at", "started_at"):
        return f"original.{name} - copy * interval '0.08 s'"
    return f"original.{name}"
