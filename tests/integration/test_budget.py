"""What a job may cost in the database, and what an idle worker may ask: counts, which are the same on every machine.

`python -m tests.bench.budget` prints them. Whoever makes a job cheaper lowers the bound here; whoever must raise one
says why.
"""

from __future__ import annotations

import pytest

from tests.bench.budget import Cost, measure

#: Servers of their own, hundreds of jobs, and idle time: a minute.
pytestmark = pytest.mark.long

#: Upper bounds, with some room: batches are larger or smaller, and idle work falls into one run or another (the relay
#: looks every three seconds, so a busy machine has more of its looks in a run of EE jobs). That a job which waits long
#: for its process looks at its row once more (decision 0021) is left out.
_MOST = {
    "send celery": Cost(statements=1.2, commits=1.2, flushes=1.2, wal_bytes=2_220),
    "run celery": Cost(statements=1.3, commits=0.9, flushes=0.8, wal_bytes=3_000),
    "send plain": Cost(statements=1.2, commits=1.2, flushes=1.2, wal_bytes=1_100),
    "run plain": Cost(statements=1.8, commits=1.7, flushes=1.7, wal_bytes=1_000),
    "send temporal": Cost(statements=2.3, commits=2.2, flushes=1.4, wal_bytes=4_600),
    "run temporal": Cost(statements=3.8, commits=2.6, flushes=2.6, wal_bytes=4_000),
}
_MOST_IN_AN_IDLE_MINUTE = {"celery": 90, "plain": 80, "temporal": 130}  # statements


#: A busy machine only ever adds: smaller batches, more idle work in a run. So the least of a few counts is the job's.
_ROUNDS = 3


@pytest.mark.parametrize("kind", list(_MOST_IN_AN_IDLE_MINUTE))
def test_a_job_costs_no_more_than_its_budget(kind: str) -> None:
    cheapest: dict[str, Cost] = {}
    idle = float("inf")
    for _ in range(_ROUNDS):
        budget = measure(jobs=200, idle=12, kinds=[kind])
        assert budget.per_job[f"send {kind}"].statements >= 1  # it was counted at all
        cheapest = {name: cost.least(cheapest.get(name, cost)) for name, cost in budget.per_job.items()}
        idle = min(idle, budget.idle_minute[kind].statements)
        costs = {name: cost for name, cost in cheapest.items() if not cost.is_within(_MOST[name])}
        if not costs and idle <= _MOST_IN_AN_IDLE_MINUTE[kind]:
            return
    assert not costs, f"over the budget, for one job: {costs}"
    assert idle <= _MOST_IN_AN_IDLE_MINUTE[kind], "statements of an idle worker in a minute"
