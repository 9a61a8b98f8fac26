"""Whether a schedule of ours started a workflow, and what of its job Temporal can be asked by."""

from __future__ import annotations

from contextlib import suppress

from temporalio import workflow
from temporalio.common import SearchAttributeKey

from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.fire import JOB_ID_ATTRIBUTE, ROOT_ID_ATTRIBUTE, TENANT_ATTRIBUTE, Fire

#: Workflows that began under an earlier release do not: their history says so, and is replayed.
NAMES_ITS_JOB = "names-its-job-by-search-attributes"


def started_by() -> Fire | None:
    """Tell which fire this workflow is, if a schedule of ours started it."""
    document = workflow.memo_value(contract.SCHEDULE_MEMO, default=None)
    key = SearchAttributeKey.for_datetime(contract.SCHEDULED_START_TIME)
    fire_at = workflow.info().typed_search_attributes.get(key)
    if document is None or fire_at is None:
        return None
    # Somebody's own schedule may have another memo of this name.
    with suppress(KeyError, TypeError, ValueError):
        return Fire.from_json(document, fire_at=fire_at.isoformat())
    return None


def name_job(fire: Fire) -> None:
    """Add the job's ids to the search attributes: the Schedule did not know them, and each fire has its own.

    Only if it has given those that it knows: then the namespace has them all. Temporal would refuse others, and have
    the workflow try again for ever.
    """
    known = workflow.info().typed_search_attributes
    job_id, root_id = (SearchAttributeKey.for_keyword(name) for name in (JOB_ID_ATTRIBUTE, ROOT_ID_ATTRIBUTE))
    tenant = SearchAttributeKey.for_keyword(TENANT_ATTRIBUTE)
    is_named = known.get(job_id) is not None or known.get(tenant) is None
    if not is_named and workflow.patched(NAMES_ITS_JOB):
        workflow.upsert_search_attributes([job_id.value_set(fire.job_id), root_id.value_set(fire.job_id)])
