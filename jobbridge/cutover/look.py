"""What the messages of waiting jobs are like: their serializers and sizes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kombu.serialization import prepare_accept_content

from jobbridge.app.publish.message.encryption import CONTENT_TYPE as SEALED
from jobbridge.broker import forms_of
from jobbridge.codec.sealing import sealed_text
from jobbridge.core.keys import Engine
from jobbridge.store.moves import jobs as moves

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.cutover.report import Scope

#: As `PAYLOAD_LIMIT` of Temporal's contract; without temporalio there is no such thing to ask.
LIMIT = 256 * 1024
_PAGE = 500
#: So many are looked at: of more, some will be like those.
_MOST = 20_000
#: What a message that is sealed is taken for.
_TYPE = "application/json"


@dataclass(kw_only=True, slots=True)
class Forms:
    """What was seen.

    Attributes:
        accepted: Content types that the app accepts.
        limit: From which size on a message counts as large.
    """

    content_types: Counter[str] = field(default_factory=Counter)
    large: int = 0
    without_message: int = 0
    accepted: frozenset[str] = frozenset()
    limit: int = LIMIT


def forms_of_messages(app: Celery, scope: Scope) -> Forms:
    """Look at the messages of the jobs that would go; at most at some thousands."""
    forms = Forms(accepted=frozenset(prepare_accept_content(app.conf.accept_content) or ()))
    place, seen = moves.FIRST, 0
    while seen < _MOST:
        with app.database.connection() as connection:
            page = moves.look(connection, scope.selection(scope.origin), after=place, limit=_PAGE)
            if scope.origin is Engine.CELERY:
                for content_type, size in forms_of(connection, [job.task_id for job in page]):
                    forms.content_types[_TYPE if content_type in (None, SEALED) else content_type] += 1
                    forms.large += size > LIMIT
        if scope.origin is Engine.TEMPORAL:
            for job in page:
                if job.message is None:
                    forms.without_message += 1
                    continue
                sealed = sealed_text(job.message) is not None
                forms.content_types[_TYPE if sealed else job.message.get("content_type") or _TYPE] += 1
                forms.large += len(json.dumps(job.message)) > LIMIT
        seen += len(page)
        if len(page) < _PAGE:
            break
        place = page[-1].place
    return forms
