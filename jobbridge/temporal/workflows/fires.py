"""Whether a schedule of ours started a workflow."""

from __future__ import annotations

from contextlib import suppress

from temporalio import workflow
from temporalio.common import SearchAttributeKey

from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.fire import Fire


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
