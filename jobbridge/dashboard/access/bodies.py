"""What an API client sends, read with limits: nothing that gets further is too large, too deep, or cannot be stored."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import Request

from jobbridge.dashboard.access.guard import body_of

#: Bytes.
LIMIT = 1024 * 1024
#: Levels of objects and lists within each other.
DEPTH = 40

#: Says of a text in a description what `check` refuses in all texts.
STORABLE = {"pattern": r"^[^\x00]*$"}

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Unreadable(HTTPException):
    """A body that is no JSON of ours: 422."""

    def __init__(self, problem: str) -> None:
        super().__init__(422, f"What was sent cannot be used: {problem}.")


async def read(request: Request) -> Any:
    """Read the JSON that was sent; None: nothing was.

    Raises:
        HTTPException: 413, 415 or 422.
    """
    body = await body_of(request, LIMIT)
    if not body:
        return None
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, f"The body is {kind[:60]!r}; send it as application/json.")
    try:
        value = json.loads(body.decode(), parse_constant=_refuse_constant)
    except RecursionError:
        raise Unreadable(f"it is deeper than {DEPTH} levels") from None
    except ValueError as error:  # also what is no UTF-8, and numbers of thousands of digits
        raise Unreadable(f"it is no JSON ({str(error)[:120]})") from None
    check(value)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def check(value: Any) -> None:
    """Refuse what Postgres or a worker could not hold. Not recursive: the depth is what is not known yet.

    Raises:
        Unreadable: It is too deep, or has a text or number that cannot be stored.
    """
    level = [value]
    for _ in range(DEPTH):
        if not level:
            return
        level = [inner for item in level for inner in _inside(item)]
    raise Unreadable(f"it is deeper than {DEPTH} levels")


def _inside(item: Any) -> list[Any]:
    match item:
        case str() if _UNSTORABLE.search(item):
            raise Unreadable("a text in it has a NUL character, or half of a surrogate pair")
        case float() if not math.isfinite(item):
            raise Unreadable("a number in it is too large")
        case dict():
            return [*item, *item.values()]
        case list():
            return item
        case _:
            return []
