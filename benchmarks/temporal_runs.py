"""The runs on Temporal: ours, light and not, beside hand-written workers on the same server (see `runs`)."""

from __future__ import annotations

import statistics

from benchmarks.ledger import WrongNumber
from benchmarks.measures import BARE, FIVE, LIGHT, OURS, Amounts
from benchmarks.runs import WARM, Numbers, Run, quantile, rate
from benchmarks.stage import Stage, Stages, cpu_seconds
from benchmarks.systems import System, on_temporal


def drain(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Run what waits; and the processor time of a job, of the worker, and of it and both servers."""
    with stages.open(on_temporal(system), "temporal-drain") as stage:
        jobs = round(amounts.temporal_drain * (1 + WARM))
        warm = jobs - amounts.temporal_drain
        stage.send("fill_from_many", jobs)
        stage.wait_until_unfinished(jobs)
        stage.start_workers()
        stage.wait_for_runs(warm)
        began, worker, servers = stage.ledger.count(), _cpu_of_workers(stage), _cpu_of_servers(stage)
        stage.wait_for_runs(jobs)
        ran = jobs - began
        worker, servers = _cpu_of_workers(stage) - worker, _cpu_of_servers(stage) - servers
        stage.wait_until_unfinished(0)
        runs = stage.ledger.whole(jobs)
    return {
        "temporal_drain": rate([when for _, when in runs], warm),
        "temporal_cpu": 1000 * (worker + servers) / max(1, ran),
        "temporal_cpu_worker": 1000 * worker / max(1, ran),
    }


def publish(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Send one by one, to a worker that is not there."""
    with stages.open(on_temporal(system), "temporal-publish") as stage:
        answer = stage.send("publish", amounts.temporal_publish)
        stage.wait_until_unfinished(answer["sent"])
    return {"temporal_publish": amounts.temporal_publish / answer["seconds"]}


def publish_from_many(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Send from 50 callers."""
    with stages.open(on_temporal(system), "temporal-publish50") as stage:
        answer = stage.send("publish_from_many", amounts.temporal_publish50)
        stage.wait_until_unfinished(answer["sent"])
    return {"temporal_publish50": amounts.temporal_publish50 / answer["seconds"]}


def group(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Send a group; the client alone has 50 starts in flight."""
    with stages.open(on_temporal(system), "temporal-group") as stage:
        answer = stage.send("groups", amounts.group)
        # Of ours, the rows: a worker's relay starts them, many at a time.
        if (there := stage.place.unfinished()[-1]) != answer["sent"]:
            raise WrongNumber(f"{system.name} should have {answer['sent']} jobs, and has {there}")
    return {"temporal_group1000": answer["seconds"]}


def latency(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Send to an idle worker, one after the other: from the call to the first line of the function."""
    with stages.open(on_temporal(system), "temporal-latency") as stage:
        stage.start_warm_workers()
        sent = stage.send("latency_idle", amounts.temporal_latency)["sent"]
        runs = stage.ledger.whole(len(sent))
        stage.wait_until_unfinished(0)
    took = sorted(1000 * (when - sent[number]) for number, when in runs if number >= len(sent) // 10)
    if took[0] <= 0:
        raise WrongNumber("a job ran before it was sent")
    return {"temporal_latency_p50": quantile(took, 0.5)}


def answers(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Wait for results of jobs that take 30 ms."""
    with stages.open(on_temporal(system), "temporal-answers") as stage:
        stage.start_warm_workers()
        answer = stage.send("answers", amounts.answers)
        stage.wait_until_unfinished(0)
    return {"temporal_get30_p50": 1000 * statistics.median(answer["get30"])}


def chord(stages: Stages, system: System, amounts: Amounts) -> Numbers:
    """Wait for a chord; without us: a workflow that starts its parts as children, and sums."""
    with stages.open(on_temporal(system), "temporal-chord") as stage:
        stage.start_warm_workers()
        answer = stage.send("chords", amounts.chord)
        stage.wait_until_unfinished(0)
    return {"temporal_chord100": answer["seconds"][str(amounts.chord)]}


def temporal_runs_of(_amounts: Amounts) -> list[Run]:
    """Give them, in the order of a round."""
    everyone = (OURS, LIGHT, BARE, FIVE)
    return [
        Run(measures=measures, systems=everyone, work=work, series=3)
        for measures, work in (
            (("temporal_drain", "temporal_cpu", "temporal_cpu_worker"), drain),
            (("temporal_publish",), publish),
            (("temporal_publish50",), publish_from_many),
            (("temporal_latency_p50",), latency),
            (("temporal_get30_p50",), answers),
            (("temporal_chord100",), chord),
            (("temporal_group1000",), group),
        )
    ]


def _cpu_of_workers(stage: Stage) -> float:
    return cpu_seconds(stage.workers)


def _cpu_of_servers(stage: Stage) -> float:
    servers = stage.place.servers
    assert servers.temporal is not None
    return cpu_seconds([servers.postgres.process, servers.temporal.process])
