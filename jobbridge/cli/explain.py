"""`jobbridge explain JOB`."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.markup import escape

from jobbridge.cli.common import app_option, console, json_option, load_app, styled, tenant_option, write_json
from jobbridge.cli.jobs import find_job
from jobbridge.core.masking.values import masked, without_passwords


@click.command("explain")
@click.argument("job_id")
@tenant_option
@app_option
@json_option
def command(job_id: str, tenant: str | None, app_name: str | None, as_json: bool) -> None:
    """Say why a job does not run, or what became of it, and what to do."""
    from jobbridge.diagnosis.explain import explain

    app = load_app(app_name)
    told = explain(app, find_job(app, job_id, tenant))
    if as_json:
        write_json(
            {
                "job_id": told.job.job_id,
                "tenant": told.job.tenant,
                "type": told.job.type,
                "status": told.job.status.value,
                "reasons": masked([asdict(reason) for reason in told.reasons]),
            }
        )
        return
    out = console()
    out.print(f"{escape(told.job.type)} {told.job.job_id} is {styled(told.job.status)}.")
    for reason in told.reasons:
        out.print(escape(without_passwords(reason.what)))
        if reason.hint:
            out.print(f" Hint: {escape(reason.hint)}")
