"""Events: sent to a job or to a key, and what of them there is; and links by which others send one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import Field

from jobbridge.app.durable import links
from jobbridge.app.durable.payloads import CLOSED, payload_of
from jobbridge.core.access import Role
from jobbridge.core.masking.values import masked
from jobbridge.core.signed.event_links import CHOICES
from jobbridge.dashboard.access.bodies import STORABLE
from jobbridge.dashboard.access.request_context import POST
from jobbridge.dashboard.actions.events import send_by_key, send_to_job
from jobbridge.dashboard.api.documents.responses import Event, EventSent, Exact, JobEvents, Link, Wait
from jobbridge.dashboard.api.rules import PREFIX, ApiRule, Asked
from jobbridge.dashboard.errors import Refused, refusal
from jobbridge.diagnosis.waits import wait_of
from jobbridge.errors import ConfigurationError, JobBridgeError
from jobbridge.store.waits.queries import SentEvent, WaitQueries

_Name = Field(min_length=1, max_length=255, examples=["approval"], json_schema_extra={**STORABLE})


class NewJobEvent(Exact):
    """An event for this job."""

    name: str = _Name
    payload: Any = Field(None, description="JSON; the wait gives it to the handler.")
    once: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        json_schema_extra={**STORABLE},
        description="Of two events of this name with the same value only the first is sent.",
    )


class NewEvent(NewJobEvent):
    """An event for a job, or for whoever waits by a key."""

    job_id: str | None = Field(None, max_length=255, json_schema_extra={**STORABLE})
    key: str | None = Field(None, min_length=1, max_length=255, json_schema_extra={**STORABLE})


class NewEventLink(Exact):
    """What is asked, and for how long."""

    name: str = _Name
    choices: list[str] = Field(list(CHOICES), min_length=1, max_length=10)
    hours: float = Field(24 * 7, gt=0, le=24 * 366, description="It is of no use after that.")


def send_event(context: Asked, asked: NewEvent) -> EventSent:
    """Send an event to a job, or to whoever waits for it by a key.

    One that comes before the wait is kept. Each is delivered once.
    """
    if (asked.job_id is None) == (asked.key is None):
        raise Refused(
            422, "There must be a job_id or a key, and not both.", hint="Say whom the event is for."
        )
    if asked.job_id is not None:
        row = context.find_job(asked.job_id)
        return EventSent(outcome=send_to_job(context, row, asked.name, asked.payload, once=asked.once))
    assert asked.key is not None
    outcome = send_by_key(
        context, asked.key, asked.name, asked.payload, tenant=context.tenant, once=asked.once
    )
    return EventSent(outcome=outcome)


def send_job_event(context: Asked, job_id: str, asked: NewJobEvent) -> EventSent:
    """Send an event to a job; one that comes before the job waits for it is kept."""
    row = context.find_job()
    return EventSent(outcome=send_to_job(context, row, asked.name, asked.payload, once=asked.once))


def job_events(context: Asked, job_id: str) -> JobEvents:
    """Give what a job waits for, and the events that were sent to it."""
    row, queries = context.find_job(), WaitQueries(context.app.database)
    wait = wait_of(context.app, row)
    shown = None if wait is None else Wait.model_construct(
        **{name: getattr(wait, name) for name in Wait.model_fields}
    )  # fmt: skip
    return JobEvents(wait=shown, events=[_event(context, each) for each in queries.events_of(row.key)])


def make_event_link(context: Asked, job_id: str, asked: NewEventLink) -> Link:
    """Make a link to a page on which somebody without an account answers what the job waits for, once."""
    row, lasts = context.find_job(), timedelta(hours=asked.hours)
    ends_at = datetime.now(UTC) + lasts
    try:
        url = links.address_of(
            context.app.settings, row.key, asked.name, expires_in=lasts, choices=asked.choices
        )
    except JobBridgeError as error:
        context.note("make event link", job=row.key, outcome="refused", reason=str(error))
        if isinstance(error, ConfigurationError):
            raise Refused(409, str(error), hint=error.hint) from error
        raise refusal(error) from error
    if context.app.settings.dashboard_url is None:
        url = context.path("event_link", event_link=url.removeprefix(links.PATH))
    context.note("make event link", job=row.key, details={"event": asked.name, "until": ends_at.isoformat()})
    return Link(url=url, expires_at=ends_at)


def _event(context: Asked, event: SentEvent) -> Event:
    told = {name: getattr(event, name) for name in Event.model_fields}
    payload = masked(payload_of(context.app, event)) if context.sees_encrypted else CLOSED
    return Event.model_construct(**(told | {"payload": payload}))


_JOB = f"{PREFIX}/jobs/{{job_id}}"

RULES = (
    ApiRule(
        f"{PREFIX}/events", "api_send_event", send_event, Role.OPERATOR, methods=POST, tag="events", errors=(404, 409)
    ),
    ApiRule(f"{_JOB}/events", "api_job_events", job_events, Role.VIEWER, tag="events", errors=(404,)),
    ApiRule(
        f"{_JOB}/events", "api_send_job_event", send_job_event, Role.OPERATOR, methods=POST, tag="events",
        errors=(404, 409),
    ),
    ApiRule(
        f"{_JOB}/event-link", "api_make_event_link", make_event_link, Role.OPERATOR, methods=POST, tag="events",
        status=201, errors=(404, 409),
    ),
)  # fmt: skip
