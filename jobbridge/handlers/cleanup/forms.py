"""`cleanup-temporary-workflow-forms`: delete temporary forms that are older than a limit, with their definitions.

A job of the system goes over all tenants; one that is sent for a tenant does that one. A definition goes with the last
form that uses it. Step by step, what if the process dies in between, or the job comes twice?

- A tenant is one transaction: forms, definitions and the audit row. Dies before its commit: nothing of that tenant
  has happened; the next attempt does it.
- Dies after the commit, before the step is recorded: the next attempt finds nothing old in that tenant. What the job
  reports is read back from the audit rows (each names its job), so it is complete.
- The same job, or two, run at once: the second waits for the locks on the forms, and then finds them gone.
- A form is made of a definition that is about to go: whoever locks the definition first wins. Either the definition
  stays, or the new form is refused by its foreign key.
- The limit is measured once per attempt, by the database's clock: all tenants are treated alike.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pydantic import AwareDatetime, Field

from jobbridge import JobContext, job
from jobbridge.handlers.audit import write_entry
from jobbridge.handlers.batches import RETRY, Context, for_each
from jobbridge.handlers.job_data import JobData
from jobbridge.handlers.sql import Connection, one, rows, run
from jobbridge.handlers.tenants import is_everybodys, now_of, transaction_of

#: Daily, for the system.
SCHEDULE = "0 2 * * *"

TENANTS = """
SELECT DISTINCT tenant
FROM psa.workflow_forms
WHERE is_temporary AND created_at < %(before)s
ORDER BY tenant
"""

LOCK_FORMS = """
SELECT form_id, definition_id
FROM psa.workflow_forms
WHERE tenant = %(tenant)s AND is_temporary AND created_at < %(before)s
ORDER BY form_id
FOR UPDATE
"""

# Before the question whether another form uses it: the answer then holds until the commit.
LOCK_DEFINITIONS = """
SELECT definition_id
FROM psa.workflow_form_definitions
WHERE tenant = %(tenant)s AND definition_id = ANY(%(definition_ids)s)
ORDER BY definition_id
FOR UPDATE
"""

DELETE_FORMS = """
DELETE FROM psa.workflow_forms
WHERE tenant = %(tenant)s AND form_id = ANY(%(form_ids)s)
"""

DELETE_DEFINITIONS = """
DELETE FROM psa.workflow_form_definitions AS definition
WHERE definition.tenant = %(tenant)s
  AND definition.definition_id = ANY(%(definition_ids)s)
  AND NOT EXISTS (
      SELECT
      FROM psa.workflow_forms AS form
      WHERE form.tenant = definition.tenant AND form.definition_id = definition.definition_id
  )
"""

DONE_BY_JOB = """
SELECT count(*), COALESCE(sum((detail ->> 'forms')::integer), 0),
    COALESCE(sum((detail ->> 'definitions')::integer), 0)
FROM psa.audit_log
WHERE job_id = %(job_id)s AND action = 'workflow_forms.deleted'
"""


class CleanUpForms(JobData):
    """Delete temporary forms older than `older_than_hours`, measured at `as_of`, by default now."""

    older_than_hours: int = Field(default=24, ge=1)
    as_of: AwareDatetime | None = None


@job("cleanup-temporary-workflow-forms", retry=RETRY, schedule=SCHEDULE)
def cleanup_temporary_workflow_forms(ctx: JobContext, data: CleanUpForms) -> dict[str, Any]:
    """Delete old temporary forms with their definitions, over all tenants."""
    return delete_forms(ctx, timedelta(hours=data.older_than_hours), data.as_of)


def tenants_with_old_forms(connection: Connection, before: datetime) -> list[str]:
    """Give the tenants that have temporary forms from before that instant."""
    return [tenant for (tenant,) in rows(connection, TENANTS, {"before": before})]


def delete_forms(ctx: Context, limit: timedelta, as_of: datetime | None) -> dict[str, Any]:
    """Delete the temporary forms that are older than the limit.

    Raises:
        PartlyFailed: Those of some tenants could not be deleted; the others are.
    """
    with ctx.transaction() as connection:
        before = (as_of or now_of(connection)) - limit
        tenants = (
            tenants_with_old_forms(connection, before) if is_everybodys(ctx.tenant_id) else [ctx.tenant_id]
        )

    def work(tenant: str) -> dict[str, int]:
        with transaction_of(ctx.transaction, tenant) as connection:
            return _delete(connection, tenant, ctx.job_id, before)

    batch = for_each(ctx, "delete", dict(zip(tenants, tenants, strict=True)), work)
    batch.raise_failures("tenants' forms were not deleted")
    with ctx.transaction() as connection:
        count, forms, definitions = one(connection, DONE_BY_JOB, {"job_id": ctx.job_id}) or ()
    ctx.progress(1, 1, f"{forms} forms deleted")
    return {"before": before.isoformat(), "tenants": count, "forms": forms, "definitions": definitions}


def _delete(connection: Connection, tenant: str, job_id: str, before: datetime) -> dict[str, int]:
    found = rows(connection, LOCK_FORMS, {"tenant": tenant, "before": before})
    if not found:
        return {"forms": 0, "definitions": 0}
    parameters = {
        "tenant": tenant,
        "form_ids": [form_id for form_id, _ in found],
        "definition_ids": sorted({definition_id for _, definition_id in found}),
    }
    rows(connection, LOCK_DEFINITIONS, parameters)
    deleted = {
        "forms": run(connection, DELETE_FORMS, parameters),
        "definitions": run(connection, DELETE_DEFINITIONS, parameters),
    }
    detail = {**deleted, "before": before.isoformat()}
    write_entry(
        connection, tenant, job_id=job_id, action="workflow_forms.deleted", subject_id=tenant, detail=detail
    )
    return deleted
