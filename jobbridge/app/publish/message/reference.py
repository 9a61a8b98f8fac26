"""A message whose arguments are large, at a broker of others: the job's row has them, and the message says so.

A broker is no place for megabytes: Redis keeps them in memory, some refuse them, and each worker takes several ahead.
So what is beyond LIMIT is written once, into the job's row, in the form in which Temporal's jobs have it there
(`core.envelope`), and goes when the job has ended. The worker reads it when the message comes. A retry writes its own
in its place: an older message finds another delivery there, and is nobody's any more.

Our own broker is in Postgres: there the message is what is stored once, and the row has no second copy.

A worker of a release that does not know this refuses such a message, and runs nothing without its arguments.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobbridge.app.publish.message.encryption import sealed_message
from jobbridge.codec.rows import HIDDEN
from jobbridge.core.envelope import HEADER, Envelope
from jobbridge.core.keys import JobKey, TenantId, job_id_for
from jobbridge.errors import JobBridgeError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: Bytes of body and headers; beyond, the body is in the row alone. As for Temporal (`temporal.wire.contract`).
LIMIT = 256 * 1024
#: The header that says so.
REFERENCE = "jobbridge-reference"
CONTENT_TYPE = "application/x-jobbridge-reference"
CONTENT_ENCODING = "binary"


class MissingArguments(JobBridgeError):
    """A message refers to a row that is not there."""

    hint = "Send the job again."


def as_sent(
    app: Celery, body: Any, options: Mapping[str, Any], *, is_in_row: bool
) -> tuple[Any, Mapping[str, Any]]:
    """Give a message's body and options as its producer is to send them: sealed, or without what the row has.

    Args:
        app: Whose.
        body: Arguments and callbacks, not yet serialized.
        options: Of `Producer.publish`.
        is_in_row: The row has the whole message.

    Raises:
        EncodeError: An argument cannot be serialized.
    """
    if not is_in_row:
        return sealed_message(app, body, options)
    hidden = {"argsrepr": HIDDEN, "kwargsrepr": HIDDEN} if app.database.codec else {}
    own = {
        "headers": {**options["headers"], **hidden, REFERENCE: True},
        "content_type": CONTENT_TYPE,
        "content_encoding": CONTENT_ENCODING,
        "serializer": None,
        "compression": None,
    }
    return b"", {**options, **own}


def fetch_body(app: Celery, message: Any) -> bool:
    """Give a message the body that it refers to, in place; one that refers to none stays as it is.

    Should it go back to a broker that takes it from here (kombu's virtual transports), it goes as it came.

    Returns:
        False: Its job has ended, or goes on by another message.

    Raises:
        MissingArguments: There is no such row.
        EncryptionError: What the row has cannot be opened.
        DatabaseUnavailable: Postgres cannot be asked now.
    """
    headers = message.headers
    if not isinstance(headers, Mapping) or not headers.get(REFERENCE):
        return True
    told = headers[HEADER]
    key = JobKey(tenant=TenantId(str(told["tenant"])), job_id=job_id_for(str(headers["id"])))
    stored = app.jobs.delivery_of(key)
    if stored is None:
        raise MissingArguments(f"Its arguments were in the row of job {key.job_id}, which is gone.")
    if stored.message is None or stored.message.get("delivery") != told["delivery"]:
        return False
    envelope = Envelope.from_json(stored.message)
    as_it_came = message.serializable() if hasattr(message, "serializable") else None
    if envelope.arguments is not None:
        message.body = json.dumps(envelope.arguments).encode()
    else:
        message.body = base64.b64decode(envelope.body or "")
    message.content_type, message.content_encoding = envelope.content_type, envelope.content_encoding
    message.headers = {name: value for name, value in headers.items() if name != REFERENCE}
    message._decoded_cache = None
    if as_it_came is not None:
        message.serializable = lambda: as_it_came
    return True
