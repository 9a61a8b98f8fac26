"""A serializer of the shop's own: JSON in which money is exact."""

import json
from decimal import Decimal

from kombu.serialization import register


def _encode(value):
    if isinstance(value, Decimal):
        return {"__money__": str(value)}
    raise TypeError(f"{value!r} is no money")


def _decode(value):
    return Decimal(value["__money__"]) if "__money__" in value else value


register(
    "shop-money",
    lambda value: json.dumps(value, default=_encode),
    lambda text: json.loads(text, object_hook=_decode),
    content_type="application/x-shop-money",
    content_encoding="utf-8",
)
