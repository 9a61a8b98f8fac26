"""Links for people without an account: whoever has one answers what a job waits for, once, until its time is over.

The dashboard serves them (`dashboard.pages.event_link`). It knows its links by the key that both share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from jobbridge.core.keys import JobKey, TenantId, job_id_for
from jobbridge.core.signed import event_links
from jobbridge.core.signed.event_links import CHOICES, LASTS, LONGEST, EventLink
from jobbridge.core.signed.signing_keys import SigningKeys
from jobbridge.core.tenant_names import tenant_named
from jobbridge.errors import ConfigurationError, JobNotFound, UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.settings import Settings

#: Of the dashboard's pages; what comes behind it is the link.
PATH = "/public/events/"
_LONGEST_LAST = timedelta(days=3660)
_MOST_CHOICES, _LONGEST_CHOICE, _LONGEST_NAME = 10, 60, 255


def event_link(
    app: Celery,
    job_id: UUID | str,
    name: str,
    *,
    expires_in: timedelta = LASTS,
    choices: Sequence[str] = CHOICES,
    tenant: str | None = None,
) -> str:
    """Make a link to a page on which somebody chooses, once, what a job is told that waits for that event.

    The event's payload is `{"choice": …, "comment": … or None, "by": … or None}`. To look at the page changes nothing,
    so programs that follow the links of a mail do no harm. The page shows the job's title (`metadata["title"]`, else
    its type) and the event's name, and nothing else.

    Args:
        job_id: Which job. It need not wait yet: what comes before is kept for it.
        name: Of the event, as in `ctx.wait_for(name)`.
        expires_in: For so long it is good.
        choices: The buttons of the page, 1 to 10 different ones of 60 characters at most.
        tenant: Whose job; if it is named, the row need not be there yet.

    Returns:
        The address: whole if `JOBBRIDGE_DASHBOARD_URL` says where the dashboard is, else from its root on.

    Raises:
        ConfigurationError: There is no JOBBRIDGE_SECRET_KEY to sign it with.
        JobNotFound: There is no such job (of that tenant).
        UnsupportedOption: A value cannot be used.
    """
    if tenant is None:
        row = app.jobs.find(job_id_for(str(job_id)), app.caller_connection)
        if row is None:
            raise JobNotFound.with_id(str(job_id))
        key = row.key
    else:
        key = JobKey(tenant=TenantId(tenant_named(tenant)), job_id=job_id_for(str(job_id)))
    return address_of(app.settings, key, name, expires_in=expires_in, choices=choices)


def address_of(
    settings: Settings,
    key: JobKey,
    name: str,
    *,
    expires_in: timedelta = LASTS,
    choices: Sequence[str] = CHOICES,
) -> str:
    """Make such a link to a job that is known. Raises as `event_link`, but for JobNotFound."""
    keys = keys_of_links(settings)
    if keys is None:
        raise ConfigurationError(
            "There is no key to sign a link with: JOBBRIDGE_SECRET_KEY is not set.",
            hint="Set it to 32 random characters or more, the same for workers, senders and the dashboard.",
        )
    _check(name, expires_in, choices)
    link = EventLink(
        link_id=uuid4(), key=key, name=name, choices=tuple(choices), ends_at=datetime.now(UTC) + expires_in
    )
    text = event_links.written(link, keys)
    if len(text) > LONGEST:
        raise UnsupportedOption(
            f"The link would have {len(text)} characters.", hint="Choose a shorter name, or fewer choices."
        )
    return (settings.dashboard_url or "").rstrip("/") + PATH + text


def keys_of_links(settings: Settings) -> SigningKeys | None:
    """Give the keys that links are signed with; None: there are none, so that there are no links.

    Raises:
        ConfigurationError: One is too short, or the file cannot be read.
    """
    keys = settings.secret_keys()
    return SigningKeys([key.encode() for key in keys]) if keys else None


def _check(name: str, expires_in: timedelta, choices: Sequence[str]) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable():
        raise UnsupportedOption(
            f"The event's name is {name!r:.80}.",
            hint=f"Use 1 to {_LONGEST_NAME} characters that can be read.",
        )
    if not isinstance(expires_in, timedelta):
        raise UnsupportedOption(f"expires_in is {expires_in!r:.60}.", hint="Pass a timedelta.")
    if not 1 <= math.ceil(expires_in.total_seconds()) <= _LONGEST_LAST.total_seconds():
        raise UnsupportedOption(
            f"expires_in is {expires_in}.", hint=f"Pass one of a second to {_LONGEST_LAST.days} days."
        )
    are_texts = not isinstance(choices, str) and all(
        isinstance(each, str)
        and 1 <= len(each) <= _LONGEST_CHOICE
        and each.isprintable()
        and each.strip() == each
        for each in choices
    )
    if not are_texts or not 1 <= len(choices) <= _MOST_CHOICES or len(set(choices)) != len(choices):
        raise UnsupportedOption(
            f"choices are {choices!r:.120}.",
            hint=f"Pass 1 to {_MOST_CHOICES} different texts of 1 to {_LONGEST_CHOICE} characters.",
        )
