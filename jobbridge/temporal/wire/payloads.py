"""Sealed payloads: what Temporal stores of a job, and only those open who have the key.

The SDK hands each payload to a codec on its way out and in, outside of the workflow's sandbox. Payloads of others
(another client's, or from before there were keys) pass as they are. `jobbridge codec-server` does the same for
Temporal's web UI.

Source: Temporal's documentation, "Payload Codec" and "Codec Server"; temporalio 1.35, converter/_payload_codec.py.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from typing import TypeVar

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    ActivitySerializationContext,
    DataConverter,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)

from jobbridge.codec.sealing import Codec
from jobbridge.errors import EncryptionError

T = TypeVar("T")

ENCODING = b"binary/jobbridge-encrypted"
#: Whose it is: the id of its workflow, or of an activity without one; authenticated with the payload.
PLACE = "jobbridge-place"
#: What Temporal puts behind the id that a schedule gives to its workflows.
_INSTANT = re.compile(r"-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")


class SealedPayloads(PayloadCodec, WithSerializationContext):
    """Seals payloads, each for its workflow.

    Args:
        codec: With keys or without: then nothing is sealed, and what is sealed cannot be opened.
        place: The workflow; None: nobody says, and any is opened.
    """

    def __init__(self, codec: Codec, place: str | None = None) -> None:
        self._codec = codec
        self._place = place

    def with_context(self, context: SerializationContext) -> SealedPayloads:
        place = None
        if isinstance(context, WorkflowSerializationContext):
            place = context.workflow_id
        elif isinstance(context, ActivitySerializationContext):
            place = context.workflow_id or context.activity_id
        return SealedPayloads(self._codec, place)

    async def encode(self, payloads: Iterable[Payload]) -> list[Payload]:
        return [self.seal(payload) for payload in payloads]

    async def decode(self, payloads: Iterable[Payload]) -> list[Payload]:
        return [self.open(payload) for payload in payloads]

    def seal(self, payload: Payload) -> Payload:
        """Seal one; what is sealed stays as it is."""
        if not self._codec or payload.metadata.get("encoding") == ENCODING:
            return payload
        place = self._place or ""
        data = self._codec.seal(payload.SerializeToString(), _full(place))
        return Payload(metadata={"encoding": ENCODING, PLACE: place.encode()}, data=data)

    def open(self, payload: Payload) -> Payload:
        """Open one; what is not sealed stays as it is.

        Raises:
            EncryptionError: It cannot be opened, or is another workflow's.
        """
        if payload.metadata.get("encoding") != ENCODING:
            return payload
        place = payload.metadata[PLACE].decode()
        if self._place is not None and place and not _belongs(place, self._place):
            raise EncryptionError(f"A payload that was encrypted for {place!r} stands in {self._place!r}.")
        return Payload.FromString(self._codec.open(payload.data, _full(place)))


def sealing(converter: DataConverter, codec: Codec) -> DataConverter:
    """Give a data converter whose payloads are sealed."""
    return replace(converter, payload_codec=SealedPayloads(codec))


async def if_readable(reading: Awaitable[T]) -> T | None:
    """Give what a payload says; None where others wrote it: in a way, or with a key, that is not here.

    Args:
        reading: Of the SDK's (`memo_value(…)`, `data_converter.decode(…)`); one that asks no server.
    """
    try:
        return await reading
    except (KeyError, RuntimeError, ValueError, EncryptionError):  # of the SDK's converter, or a codec's
        return None


def _belongs(place: str, workflow_id: str) -> bool:
    # A schedule's input is sealed for the id that the schedule gives; each of its workflows has its instant behind it,
    # and is given the result, or the failure, of the one before.
    if workflow_id == place or workflow_id.startswith(f"{place}-"):
        return True
    schedule = _INSTANT.sub("", workflow_id)
    return schedule not in (workflow_id, "") and _INSTANT.sub("", place) == schedule


def _full(place: str) -> str:
    return f"temporal/{place}"
