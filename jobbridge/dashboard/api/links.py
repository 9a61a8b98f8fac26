"""Links for customers: made by an operator, good for a while, revocable. What they show is in `pages.public`."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from jobbridge.core.access import Role
from jobbridge.dashboard.access.request_context import POST
from jobbridge.dashboard.api.documents.responses import Exact, Link, Revoked
from jobbridge.dashboard.api.rules import PREFIX, ApiRule, Asked


class NewLink(Exact):
    """For how long."""

    hours: float = Field(24 * 7, gt=0, le=24 * 366, description="It is of no use after that.")


def make_link(context: Asked, job_id: str, asked: NewLink | None = None) -> Link:
    """Make a link that shows a customer how far the job is, and nothing else of it.

    The link is all that one needs to see it, and cannot be shown again.
    """
    row, asked = context.find_job(), asked or NewLink.model_validate({})
    secret, expires_at = context.dashboard.links.create(
        row.key, lasts=timedelta(hours=asked.hours), created_by=context.principal.name
    )
    context.note("make link", job=row.key, details={"until": expires_at.isoformat()})
    return Link(url=context.path("public_job", link=secret), expires_at=expires_at)


def revoke_links(context: Asked, job_id: str) -> Revoked:
    """Make all links to a job of no use, at once."""
    row = context.find_job()
    revoked = context.dashboard.links.revoke(row.key)
    context.note("revoke links", job=row.key, details={"links": revoked})
    return Revoked(revoked=revoked)


RULES = (
    ApiRule(
        f"{PREFIX}/jobs/{{job_id}}/public-link",
        "api_make_link",
        make_link,
        Role.OPERATOR,
        methods=POST,
        status=201,
        errors=(404,),
    ),
    ApiRule(
        f"{PREFIX}/jobs/{{job_id}}/public-link",
        "api_revoke_links",
        revoke_links,
        Role.OPERATOR,
        methods=("DELETE",),
        errors=(404,),
    ),
)
