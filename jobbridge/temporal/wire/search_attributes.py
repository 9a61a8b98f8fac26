"""What jobs can be searched by at Temporal: `JobbridgeTenant = 'acme' AND JobbridgeJobName = 'invoice.send'`.

The namespace has to know the attributes (`jobbridge temporal-setup`); where it does not, workflows start without them.
A client looks once whether they are there, and again after a while if they are not.

They are not encrypted, whatever the keys: they hold what rows keep readable, too.
"""

from __future__ import annotations

import time
from weakref import WeakKeyDictionary

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

from jobbridge.core.envelope import Envelope
from jobbridge.temporal.wire.fire import JOB_ID_ATTRIBUTE, ROOT_ID_ATTRIBUTE, TENANT_ATTRIBUTE

TENANT = SearchAttributeKey.for_keyword(TENANT_ATTRIBUTE)
JOB_NAME = SearchAttributeKey.for_keyword("JobbridgeJobName")
JOB_ID = SearchAttributeKey.for_keyword(JOB_ID_ATTRIBUTE)
ROOT_ID = SearchAttributeKey.for_keyword(ROOT_ID_ATTRIBUTE)
ALL = (TENANT, JOB_NAME, JOB_ID, ROOT_ID)

#: Seconds until it is asked again whether they are there.
AGAIN = 300.0
#: Bytes of a value: a keyword has no more on servers whose visibility store is SQL.
_LONGEST = 255

_asked: WeakKeyDictionary[Client, tuple[bool, float]] = WeakKeyDictionary()


async def missing(client: Client) -> list[str]:
    """Name those that the namespace does not know.

    Raises:
        RPCError: It cannot be asked.
    """
    answer = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    return [key.name for key in ALL if key.name not in answer.custom_attributes]


async def register(client: Client) -> list[str]:
    """Add those that the namespace does not know, and name them. Again is harmless.

    Raises:
        RPCError: It refuses.
    """
    names = await missing(client)
    if names:
        keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        try:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(
                    namespace=client.namespace, search_attributes=dict.fromkeys(names, keyword)
                )
            )
        except RPCError as error:
            if error.status is not RPCStatusCode.ALREADY_EXISTS:  # somebody else did it just now
                raise
    _asked.pop(client, None)
    return names


async def attributes_of(client: Client, envelope: Envelope) -> TypedSearchAttributes | None:
    """Give the attributes of a job's workflow; None: the namespace does not know them."""
    root_id = envelope.headers.get("root_id") or envelope.id
    values = {TENANT: envelope.tenant, JOB_NAME: envelope.task, JOB_ID: envelope.id, ROOT_ID: str(root_id)}
    return await _told(client, values)


async def attributes_of_fires(client: Client, *, tenant: str, task: str) -> TypedSearchAttributes | None:
    """Give those of all workflows that a Schedule starts; None: as above.

    It does not know the ids of their jobs: each workflow adds its own (`workflows.fires`). The namespace is asked anew:
    what it is told now stays so.
    """
    if not _asked.get(client, (False, 0.0))[0]:
        _asked.pop(client, None)
    return await _told(client, {TENANT: tenant, JOB_NAME: task})


async def _told(client: Client, values: dict[SearchAttributeKey[str], str]) -> TypedSearchAttributes | None:
    are_there, asked_at = _asked.get(client, (False, float("-inf")))
    if not are_there and time.monotonic() - asked_at >= AGAIN:
        try:
            are_there = not await missing(client)
        except RPCError:  # a server of others, whose operator's service is not for everybody
            are_there = False
        _asked[client] = (are_there, time.monotonic())
    if not are_there:
        return None
    return TypedSearchAttributes([SearchAttributePair(key, _cut(value)) for key, value in values.items()])


def forget(client: Client) -> None:
    """Look anew: the namespace refused one."""
    _asked[client] = (False, time.monotonic())


def _cut(value: str) -> str:
    return value.encode()[:_LONGEST].decode(errors="ignore")
