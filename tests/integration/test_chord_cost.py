"""What a chord's part costs does not grow with the chord: statements, commits and bytes of log, of a real worker."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from celery import chord

from tests.bench.budget import Cost, Stage, _close, _servers
from tests.bench.budget_apps import MEASURED, WARM

#: The same number of parts in all, so that tables and indexes are of the same size.
PARTS, FEW = 2_000, 100

#: How many ends share a commit depends on how busy the machine is, which only ever adds: the least of a few counts.
ROUNDS = 4


def _cost_of_part(stage: Stage, parts: int) -> Cost:
    app = stage.app("celery")
    with stage.worker("celery"):
        _send(app, WARM, 20)
        stage.meter.wait_until_done()
        for _ in range(PARTS // parts):
            _send(app, MEASURED, parts)
        before = stage.meter.read()
        control = stage.controller().control
        control.add_consumer(MEASURED, destination=["budget@here"], reply=True, timeout=10)
        stage.meter.wait_until_done()
        cost = stage.meter.read() - before
    rows = app.database.run(
        lambda own: own.execute(
            "SELECT result FROM jobs WHERE type = 'total' AND queue = %s", [MEASURED]
        ).fetchall()
    )
    assert rows == [(parts,)] * (PARTS // parts)
    _close(app)
    return cost.times(1 / PARTS)


def _send(app: Any, queue: str, parts: int) -> None:
    part, body = app.tasks["nothing"].si().set(queue=queue), app.tasks["total"].s().set(queue=queue)
    chord([part.clone() for _ in range(parts)], body).delay()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_part_costs_the_same_in_a_large_chord() -> None:
    with _servers() as open_stage:
        cheapest: dict[int, Cost] = {}
        for number in range(ROUNDS):
            for parts in (FEW, PARTS):
                with open_stage(f"parts{parts}_{number}") as stage:
                    cost = _cost_of_part(stage, parts)
                print(parts, cost)
                cheapest[parts] = cost.least(cheapest.get(parts, cost))
            if cheapest[PARTS].is_within(_most(cheapest[FEW])):
                return
    raise AssertionError(f"A part of a large chord costs more: {cheapest}")


def _most(few: Cost) -> Cost:
    # How many commits share a flush is the disk's and the machine's business.
    return replace(few.times(1.1), flushes=float("inf"))
