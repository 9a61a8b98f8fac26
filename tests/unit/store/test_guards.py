"""How the table of the status machine reads as SQL. What it does is tested beside `decide`, on Postgres."""

from __future__ import annotations

import re

import pytest

from jobbridge.core.events import Accepted, Completed, Expired, JobEvent, Submitted
from jobbridge.core.machine import MOVES
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.store.jobs import submit, transitions
from jobbridge.store.jobs.guards import becomes, may
from jobbridge.store.statuses import listed


def test_a_guard_reads_as_somebody_would_write_it() -> None:
    assert may(Completed) == "job.status = 'processing' AND job.attempt = %(attempt)s::integer"
    assert may(Expired) == "job.status IN ('pending', 'queued', 'scheduled', 'retrying', 'waiting')"
    assert may(Accepted) == "job.delivery = %(delivery)s", "whatever the status is"
    assert " ".join(may(Submitted).split()) == (
        "( (job.status = 'processing' AND job.attempt = %(continues)s::integer)"
        " OR (job.status = 'queued' AND job.delivery IS NULL)"
        f" OR (job.status IN ({listed(FINAL - {JobStatus.CANCELLED})}) AND %(continues)s::integer IS NULL) )"
        " AND job.delivery IS DISTINCT FROM %(delivery)s"
    )


def test_a_status_reads_as_somebody_would_write_it() -> None:
    assert becomes(Completed) == "'completed'"
    assert becomes(Accepted) == (
        "CASE WHEN job.status = 'pending'"
        " THEN CASE WHEN job.run_at > now() THEN 'scheduled' ELSE 'queued' END ELSE job.status END"
    )


@pytest.mark.parametrize("kind", MOVES, ids=lambda kind: kind.__name__)
def test_a_guard_stands_in_a_statement(kind: type[JobEvent]) -> None:
    statements = [
        value
        for name, value in (vars(transitions) | vars(submit)).items()
        if name.isupper() and isinstance(value, str)
    ]
    assert any(may(kind) in statement for statement in statements)


def test_a_statement_lists_only_statuses_that_belong_together() -> None:
    """A list that somebody wrote by hand would miss the next status that the machine learns."""
    statements = [value for value in (vars(transitions) | vars(submit)).values() if isinstance(value, str)]
    listings = {found for statement in statements for found in re.findall(r"IN \(('[a-z', ]+')\)", statement)}
    known = {listed(FINAL), *(listed(move.sources) for moves in MOVES.values() for move in moves)}
    assert listings - known == {"'queued', 'scheduled'"}, (
        "what a submission says, that is told apart by what is due"
    )
