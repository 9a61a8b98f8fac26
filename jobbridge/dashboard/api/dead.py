"""What was given up: by type and error, each by itself, and sent again."""

from __future__ import annotations

import time
from datetime import datetime
from itertools import islice
from typing import Annotated

from fastapi import Query
from pydantic import Field

from jobbridge.app.dead import letters, redrive
from jobbridge.app.dead.letters import DeadFilter
from jobbridge.core.access import Role
from jobbridge.core.keys import Engine
from jobbridge.dashboard.access.bodies import STORABLE
from jobbridge.dashboard.access.request_context import POST, RequestContext, storable
from jobbridge.dashboard.api.documents.responses import Answer, Exact
from jobbridge.dashboard.api.rules import PREFIX, ApiRule, Asked

#: Seconds that one request works.
SECONDS = 10.0
#: Letters that are looked at to find groups.
_LOOKED_AT = 20_000
_GROUP = r"^[0-9a-f]{10}$"
_REFUSALS = 10

Word = Annotated[str | None, Query(max_length=255)]
Group = Annotated[str | None, Query(pattern=_GROUP, description="As lists name it.")]


class DeadGroup(Answer):
    """Those of one type that failed alike."""

    group: str = Field(pattern=_GROUP, examples=["0a1b2c3d4e"])
    type: str
    error: str = Field(description="Of the last one: its first line.")
    letters: int
    engines: list[Engine]
    first_at: datetime
    last_at: datetime


class DeadGroups(Answer):
    """The groups, the largest first."""

    groups: list[DeadGroup]
    looked_at: int
    is_cut: bool = Field(description="There are more than were looked at: the latest are missing.")


class Letter(Answer):
    """A job that failed for good, or a message without a job that was given up."""

    id: str = Field(description="The job's, or `message-` and a number.")
    tenant: str | None
    type: str
    engine: Engine
    queue: str | None
    attempts: int
    error: str
    died_at: datetime
    group: str


class Letters(Answer):
    """Some, the first to die first."""

    letters: list[Letter]
    is_cut: bool = Field(description="There are more.")


class RetryDead(Exact):
    """Which, and how fast. Without a filter: all."""

    type: str | None = Field(None, max_length=255, json_schema_extra={**STORABLE})
    group: str | None = Field(None, pattern=_GROUP)
    engine: Engine | None = None
    queue: str | None = Field(None, max_length=255, json_schema_extra={**STORABLE})
    rate: float | None = Field(None, gt=0, le=10_000, description="At most so many a second.")


class Redriven(Answer):
    """What became of it."""

    sent: int
    passed: int = Field(description="What ran again, or went, meanwhile.")
    refused: dict[str, int] = Field(description="Why, and how many; these are as they were.")
    is_cut: bool = Field(description="The time of one request was over. The same request goes on.")


def list_groups(
    context: Asked, type: Word = None, engine: Engine | None = None, queue: Word = None
) -> DeadGroups:
    """Give what was given up, on both engines, by type and error."""
    found = letters.groups(context.app, _filter(context, type, None, engine, queue), limit=_LOOKED_AT)
    groups = [DeadGroup.model_validate(each) for each in found.groups]
    return DeadGroups(groups=groups, looked_at=found.looked_at, is_cut=found.is_cut)


def list_letters(
    context: Asked,
    type: Word = None,
    group: Group = None,
    engine: Engine | None = None,
    queue: Word = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Letters:
    """Give what was given up, each by itself."""
    where = _filter(context, type, group, engine, queue)
    found = list(islice(letters.letters(context.app, where), limit + 1))
    return Letters(letters=[_letter(each) for each in found[:limit]], is_cut=len(found) > limit)


def retry_dead(context: Asked, asked: RetryDead | None = None) -> Redriven:
    """Send again what was given up, each once, the first to die first.

    A request works for ten seconds; the same one goes on where it ended, also if the process died meanwhile.
    """
    asked = asked or RetryDead.model_validate({})
    where = _filter(context, asked.type, asked.group, asked.engine, asked.queue)
    until = time.monotonic() + SECONDS
    done = redrive.redrive(context.app, where, rate=asked.rate, is_stopped=lambda: time.monotonic() > until)
    note_redriven(context, where, done)
    return Redriven(
        sent=done.sent,
        passed=done.passed,
        refused=dict(done.refused.most_common(_REFUSALS)),
        is_cut=done.is_cut,
    )


def note_redriven(context: RequestContext, where: DeadFilter, done: redrive.Redriven) -> None:
    """Put on record what was sent again."""
    context.note(
        "retry dead",
        tenant=where.tenant,
        subject=where.group or where.type or "all",
        details={"sent": done.sent, "passed": done.passed, "refused": sum(done.refused.values())},
    )


def _filter(
    context: RequestContext, type_: str | None, group: str | None, engine: Engine | None, queue: str | None
) -> DeadFilter:
    return DeadFilter(
        tenant=context.tenant,
        type=storable(type_) if type_ else None,
        group=group,
        engine=engine,
        queue=storable(queue) if queue else None,
    )


def _letter(letter: letters.Letter) -> Letter:
    return Letter(
        id=letter.id,
        tenant=None if letter.key is None else letter.key.tenant,
        type=letter.type,
        engine=letter.engine,
        queue=letter.queue,
        attempts=letter.attempts,
        error=letter.error,
        died_at=letter.died_at,
        group=letter.group,
    )


_TAG = "dead letters"

RULES = (
    ApiRule(f"{PREFIX}/dead", "api_dead", list_groups, Role.VIEWER, tag=_TAG),
    ApiRule(f"{PREFIX}/dead/letters", "api_dead_letters", list_letters, Role.VIEWER, tag=_TAG),
    ApiRule(f"{PREFIX}/dead/retry", "api_dead_retry", retry_dead, Role.OPERATOR, methods=POST, tag=_TAG),
)
