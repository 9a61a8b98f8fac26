"""What a handler declares, and the list of all that did."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

from jobbridge.core.keys import Engine
from jobbridge.core.retry import RetryPolicy
from jobbridge.core.rules.limits import FleetRule
from jobbridge.core.rules.unique import UniqueRule
from jobbridge.core.schedules.definition import Recurrence
from jobbridge.errors import DuplicateHandler, UnknownHandler

DEFAULT_TIMEOUT = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True, slots=True)
class HandlerSpec:
    """One declaration: makes the Celery task, and is what the Temporal activity runs.

    Attributes:
        name: The task name and the workflow's jobName.
        function: `(ctx, data)`, sync or async.
        data_model: The pydantic model of `data`; None: data is passed as it came.
        timeout: For one attempt; None: no limit.
    """

    name: str
    function: Callable[..., Any]
    data_model: type[Any] | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: timedelta | None = DEFAULT_TIMEOUT
    queue: str | None = None
    engine: Engine | None = None
    priority: int | None = None
    tenant_required: bool = False
    schedule: str | timedelta | Recurrence | None = None
    description: str = ""
    enterprise_only: bool = False
    temporal_light: bool | None = None
    concurrency: tuple[FleetRule, ...] = ()
    rate_limit: tuple[FleetRule, ...] = ()
    unique: UniqueRule | None = None
    throttle: UniqueRule | None = None
    debounce: UniqueRule | None = None

    @property
    def place(self) -> str:
        """Where it is declared, for people."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.function)


def handler_of(task: object) -> HandlerSpec | None:
    """Give what a handler's task was made of; None: it is another task, whatever that may call its `spec`."""
    spec = getattr(task, "spec", None)
    return spec if isinstance(spec, HandlerSpec) else None


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistryStats:
    """How many handlers there are, and of which kinds."""

    handlers: int
    asynchronous: int
    scheduled: int
    enterprise_only: int
    is_initialized: bool


class JobHandlerRegistry:
    """Handlers by name.

    Attributes:
        is_initialized: All modules that declare handlers were imported.
    """

    def __init__(self) -> None:
        self._specs: dict[str, HandlerSpec] = {}
        self.is_initialized = False

    def register(self, spec: HandlerSpec, *, force: bool = False) -> None:
        """Add a handler.

        The same function under the same name again (its module was imported twice) is no conflict.

        Raises:
            DuplicateHandler: Another function has that name, and `force` is not set.
        """
        existing = self._specs.get(spec.name)
        if existing is not None and existing.place != spec.place and not force:
            raise DuplicateHandler.named(spec.name, existing.place, spec.place)
        self._specs[spec.name] = spec

    def unregister(self, name: str) -> bool:
        return self._specs.pop(name, None) is not None

    def get(self, name: str) -> HandlerSpec:
        """Give the handler of that name.

        Raises:
            UnknownHandler: There is none; suggests the nearest name.
        """
        try:
            return self._specs[name]
        except KeyError:
            raise UnknownHandler.named(name, suggestion=nearest(name, self._specs)) from None

    def has(self, name: str) -> bool:
        return name in self._specs

    def names(self) -> list[str]:
        return sorted(self._specs)

    def all(self) -> dict[str, HandlerSpec]:
        return dict(self._specs)

    def config(self, name: str) -> dict[str, Any]:
        """Give what the handler declares, but for its function.

        Raises:
            UnknownHandler: There is none; suggests the nearest name.
        """
        spec = self.get(name)
        return {field.name: getattr(spec, field.name) for field in fields(spec) if field.name != "function"}

    def stats(self) -> RegistryStats:
        specs = list(self)
        return RegistryStats(
            handlers=len(specs),
            asynchronous=sum(spec.is_async for spec in specs),
            scheduled=sum(spec.schedule is not None for spec in specs),
            enterprise_only=sum(spec.enterprise_only for spec in specs),
            is_initialized=self.is_initialized,
        )

    def mark_initialized(self) -> None:
        self.is_initialized = True

    def clear(self) -> None:
        self._specs.clear()
        self.is_initialized = False

    def __iter__(self) -> Iterator[HandlerSpec]:
        return iter(list(self._specs.values()))

    def __len__(self) -> int:
        return len(self._specs)


def nearest(name: str, known: Any) -> str | None:
    """Give the known name that a person most likely meant, if any is near."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return matches[0] if matches else None
