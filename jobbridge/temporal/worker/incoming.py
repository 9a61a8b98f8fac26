"""The message that Celery's consumer is given for an execution: its acknowledgement settles the activity."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from kombu.serialization import prepare_accept_content

from jobbridge.core.envelope import HEADER, Envelope
from jobbridge.temporal.worker.execution import Execution, JobMessage, SettlingChannel

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


def message_for(envelope: Envelope, execution: Execution, app: Celery, *, is_redelivery: bool) -> JobMessage:
    """Make the message that the worker's consumer is given."""
    headers = dict(envelope.headers)
    headers[HEADER] = {
        **(headers.get(HEADER) or {}),
        "external_id": execution.workflow_id,
        "external_run_id": execution.run_id,
    }
    if envelope.arguments is not None:
        body = json.dumps(envelope.arguments).encode()
    else:
        body = base64.b64decode(envelope.body or "")
    return JobMessage(
        body=body,
        delivery_tag=execution.task_id,
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        delivery_info={
            "exchange": "",
            "routing_key": envelope.queue,
            **(envelope.properties.get("delivery_info") or {}),
            "redelivered": is_redelivery,
        },
        properties={"correlation_id": envelope.id, "priority": envelope.priority, **envelope.properties},
        headers=headers,
        accept=prepare_accept_content(app.conf.accept_content),
        channel=SettlingChannel(execution, known_tasks=app.tasks),
        execution=execution,
    )
