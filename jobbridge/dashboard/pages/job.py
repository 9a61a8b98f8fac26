"""One job: why it is where it is, its attempts and steps, its data, what it made, and what can be done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from shlex import quote
from typing import TYPE_CHECKING, Any
from urllib.parse import quote as url_quote

from starlette.exceptions import HTTPException
from starlette.responses import Response

from jobbridge.app.durable.payloads import CLOSED, payload_of
from jobbridge.app.results.artifacts import artifacts_of
from jobbridge.core.access import Role
from jobbridge.core.durable import DURABLE
from jobbridge.core.keys import Engine
from jobbridge.core.light import activity_id_in
from jobbridge.core.masking.values import masked
from jobbridge.core.status import FINAL, JobStatus
from jobbridge.dashboard.access.redaction import reasons_for
from jobbridge.dashboard.access.request_context import RequestContext, Rule, uuid_or_none
from jobbridge.dashboard.actions.allowed_actions import possible
from jobbridge.dashboard.views.graph import graph_of
from jobbridge.dashboard.views.related import related_to
from jobbridge.dashboard.views.shell_commands import send_like
from jobbridge.dashboard.views.timeline import timeline
from jobbridge.diagnosis.explain import explain
from jobbridge.diagnosis.waits import send_command, wait_of
from jobbridge.store.batches.progress import BATCH
from jobbridge.store.fanout.graph import whole_of
from jobbridge.store.waits.queries import WaitQueries

if TYPE_CHECKING:
    from jobbridge.store.batches.progress import BatchProgress
    from jobbridge.store.jobs.rows import JobDetailRow, JobRow
    from jobbridge.store.waits.queries import SentEvent


def job(context: RequestContext) -> Response:
    """Show a job."""
    row = context.find_job()
    details = context.details_of(row)
    return context.dashboard.page(
        context,
        "job.html",
        job=row,
        bars=timeline(row, details, now=datetime.now(UTC)),
        steps=[step for step in details if step.result is not None],
        reasons=reasons_for(context, explain(context.app, row).reasons),
        related=related_to(context, row),
        graph=graph_of(whole_of(context.app.database, row), row.job_id, now=datetime.now(UTC)),
        batch=_batch(context, row),
        artifacts=artifacts_of(context.app, row),
        data=row.metadata.get("data"),
        has_data="data" in row.metadata,
        schedule=_schedule(row),
        retry_of=uuid_or_none(str(row.metadata.get("retry_of"))),
        metadata={
            name: value for name, value in row.metadata.items() if name not in {"data", "schedule", BATCH}
        },
        possible=possible(context, row),
        wait=wait_of(context.app, row),
        may_send=context.principal.may(Role.OPERATOR),
        events=_events(context, row, details),
        may_act=context.principal.may(Role.OPERATOR),
        commands=list(_commands(context, row)),
        temporal_url=_temporal_url(context, row),
        query=context.of_tenant(row.tenant),
    )


def download(context: RequestContext) -> Response:
    """Give the bytes of something that the job made, as a file and never as a page."""
    row, wanted = context.find_job(), str(context.request.path_params["artifact_id"])
    found = next((each for each in artifacts_of(context.app, row) if each.artifact_id == wanted), None)
    if found is None:
        raise HTTPException(404, "The job made nothing of that name.")
    try:
        content = found.read()
    except LookupError:
        raise HTTPException(404, "That is not there any more.") from None
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "_" for c in found.name) or "file"
    disposition = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{url_quote(found.name, safe='')}"
    return Response(
        content,
        media_type="application/octet-stream",
        headers={
            "Content-Disposition": disposition,
            "Content-Security-Policy": "default-src 'none'; sandbox",
        },
    )


def _events(
    context: RequestContext, row: JobRow, details: Sequence[JobDetailRow]
) -> Sequence[tuple[SentEvent, str]]:
    """Give the events that were sent to the job, each with its payload as it may be seen."""
    may_have_some = row.status is JobStatus.WAITING or any(each.metadata.get(DURABLE) for each in details)
    if not may_have_some:
        return ()
    events = WaitQueries(context.app.database).events_of(row.key)
    return [(each, _payload(context, each)) for each in events]


def _payload(context: RequestContext, event: SentEvent) -> str:
    if event.payload is None:
        return ""
    if not context.sees_encrypted:
        return CLOSED
    return json.dumps(masked(payload_of(context.app, event)), ensure_ascii=False)


def _batch(context: RequestContext, row: JobRow) -> BatchProgress | None:
    """Give the batch that the job is of, if it is theirs to see."""
    batch_id = uuid_or_none(str(row.metadata.get(BATCH)))
    batch = None if batch_id is None else context.app.batches.store.progress(batch_id)
    return batch if batch is not None and context.principal.sees(batch.tenant) else None


def _schedule(row: JobRow) -> dict[str, Any] | None:
    told = row.metadata.get("schedule")
    return told if isinstance(told, dict) else None


def _commands(context: RequestContext, row: JobRow) -> Iterator[str]:
    can = possible(context, row)
    yield f"jobbridge explain {row.job_id}"
    yield f"jobbridge jobs show {row.job_id}"
    if row.status not in FINAL:
        yield f"jobbridge jobs watch {row.job_id}"
    if (wait := wait_of(context.app, row)) is not None and wait.kind == "event" and can.cancel:
        yield send_command(wait)
    if can.cancel:
        yield f"jobbridge jobs cancel {row.job_id} --reason {quote('…')}"
    if can.retry:
        yield f"jobbridge jobs retry {row.job_id}"
    if can.run_again:
        yield f"jobbridge jobs retry {row.job_id} --new"
    if can.edit:
        yield " ".join(send_like(row))


def _temporal_url(context: RequestContext, row: JobRow) -> str | None:
    """Give the address of the job's workflow in Temporal's own UI, if it is said where that is."""
    settings = context.app.settings
    base = (settings.temporal_ui_url or "").rstrip("/")
    if not base.startswith(("http://", "https://")) or row.runner_type is not Engine.TEMPORAL:
        return None
    if row.external_id is None or context.principal.tenant is not None:
        return None
    activity_id = activity_id_in(row.external_id)
    known_as = ["activities", activity_id] if activity_id else ["workflows", row.external_id]
    parts = ["namespaces", settings.temporal_namespace, *known_as]
    parts += [row.external_run_id] if row.external_run_id else []
    return "/".join([base, *(url_quote(part, safe="") for part in parts)])


RULES = (
    Rule("/jobs/{job_id}", "job", job, Role.VIEWER),
    Rule("/jobs/{job_id}/artifacts/{artifact_id}", "artifact", download, Role.VIEWER),
)
