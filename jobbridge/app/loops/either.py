"""Blocks that are entered by `with` and by `async with`, and wait for nothing at either end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import _GeneratorContextManager
from functools import wraps
from types import TracebackType
from typing import Any, ParamSpec

P = ParamSpec("P")


class Either(_GeneratorContextManager[None]):
    """A block of both kinds."""

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self.__exit__(kind, error, traceback)


def either(function: Callable[P, Iterator[None]]) -> Callable[P, Either]:
    """Make a block of a generator, as `contextlib.contextmanager` does."""

    @wraps(function)
    def block(*args: P.args, **kwargs: P.kwargs) -> Either:
        made: Any = Either
        entered: Either = made(function, args, kwargs)
        return entered

    return block
