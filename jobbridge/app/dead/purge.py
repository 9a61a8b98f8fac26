"""Deleting what was given up, at somebody's word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING
from uuid import UUID

from jobbridge.app.dead.letters import MESSAGE, PAGE, DeadFilter, Letter, letters
from jobbridge.broker import delete_dead, delete_dead_of
from jobbridge.core.keys import TenantId
from jobbridge.store.workers.dead import purge_dead

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


def purge(app: Celery, where: DeadFilter, *, died_before: datetime) -> int:
    """Delete what was given up before an instant: jobs with their steps, and messages.

    Args:
        app: Whose.
        where: Which.
        died_before: What died later stays, also if it did so while this goes on.

    Returns:
        How many jobs, and messages without a row, there were.
    """
    found = letters(app, replace(where, died_before=died_before))
    deleted = 0
    while portion := list(islice(found, PAGE)):
        deleted += _delete(app, portion, died_before)
    return deleted


def _delete(app: Celery, portion: Sequence[Letter], before: datetime) -> int:
    jobs: dict[TenantId, list[UUID]] = defaultdict(list)
    messages: list[int] = []
    for letter in portion:
        if letter.key is None:
            messages.append(int(letter.id.removeprefix(MESSAGE)))
        else:
            jobs[letter.key.tenant].append(letter.key.job_id)
    deleted = sum(purge_dead(app.database, tenant, ids, before=before) for tenant, ids in jobs.items())
    buried = [letter.task_id for letter in portion if letter.key is not None and letter.task_id is not None]
    if app.shares_database_with_broker and (messages or buried):
        with app.database.transaction() as connection:
            deleted += delete_dead(connection, messages, before=before)
            delete_dead_of(connection, buried, before=before)
    return deleted
