"""A message whose body is sealed: on its way to a broker, and in the worker that takes it from there.

The whole body is sealed, with what follows the job (links, chain, chord). The headers that route and record a message
stay readable; those that tell its arguments are replaced. On Temporal the payloads are sealed instead
(`jobbridge.temporal.wire.payloads`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kombu import serialization
from kombu.utils.encoding import str_to_bytes

from jobbridge.codec.rows import HIDDEN
from jobbridge.errors import EncryptionError

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.codec.sealing import Codec

#: The header that says what is inside: content type and encoding.
HEADER = "jobbridge-encrypted"
CONTENT_TYPE = "application/x-jobbridge-encrypted"
CONTENT_ENCODING = "binary"


def sealed_message(app: Celery, body: Any, options: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """Give a message's body and options as its producer is to send them: sealed, if there are keys.

    Args:
        app: Whose.
        body: Arguments and callbacks, not yet serialized.
        options: Of `Producer.publish`.

    Raises:
        EncodeError: An argument cannot be serialized.
    """
    codec = app.database.codec
    if not codec or HEADER in options["headers"]:
        return body, options
    serializer = options.get("serializer") or app.conf.task_serializer
    content_type, content_encoding, data = serialization.dumps(body, serializer=serializer)
    sealed, headers = sealed_body(
        codec, str_to_bytes(data), options["headers"], content_type, content_encoding
    )
    own = {
        "headers": headers,
        "content_type": CONTENT_TYPE,
        "content_encoding": CONTENT_ENCODING,
        "serializer": None,
    }
    return sealed, {**options, **own}


def sealed_body(
    codec: Codec,
    body: bytes,
    headers: Mapping[str, Any],
    content_type: str | None,
    content_encoding: str | None,
) -> tuple[bytes, dict[str, Any]]:
    """Give a serialized body sealed, and the headers that it goes with; its type is `CONTENT_TYPE` then."""
    sealed = codec.seal(body, _place(headers, content_type, content_encoding))
    own = {HEADER: [content_type, content_encoding], "argsrepr": HIDDEN, "kwargsrepr": HIDDEN}
    return sealed, {**headers, **own}


def open_message(app: Celery, message: Any) -> None:
    """Open a message in place; one that is not sealed stays as it is.

    Should it go back to a broker that takes it from here (kombu's virtual transports), it goes as it came.

    Raises:
        EncryptionError: It cannot be opened.
    """
    headers = message.headers
    told = headers.get(HEADER) if isinstance(headers, Mapping) else None
    if told is None:
        return
    if not isinstance(told, list | tuple) or len(told) != 2:
        raise EncryptionError(f"Its header {HEADER!r} is {told!r:.60}.")
    content_type, content_encoding = told
    body = app.database.codec.open(
        str_to_bytes(message.body), _place(headers, content_type, content_encoding)
    )
    as_it_came = message.serializable() if hasattr(message, "serializable") else None
    message.body, message.content_type, message.content_encoding = body, content_type, content_encoding
    message.headers = {name: value for name, value in headers.items() if name != HEADER}
    message._decoded_cache = None
    if as_it_came is not None:
        message.serializable = lambda: as_it_came


def _place(headers: Mapping[str, Any], content_type: object, content_encoding: object) -> str:
    # With the type: else who may write messages could have a body of JSON read as a pickle.
    return f"{headers['id']}/body/{headers['task']}/{content_type}/{content_encoding}"
