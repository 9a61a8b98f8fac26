"""What type checkers are told of tasks, signatures and results: Celery comes without types.

The objects are Celery's own (`Task`, `Signature`, `AsyncResult`); these protocols name what callers use of them, with
the arguments and the result of the function behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

if TYPE_CHECKING:
    from uuid import UUID

    from jobbridge.app.application import Celery
    from jobbridge.app.options import Sent
    from jobbridge.app.results.async_results import Progress
    from jobbridge.core.enqueue import SingletonPolicy
    from jobbridge.core.keys import Engine

P = ParamSpec("P")
Data = TypeVar("Data", contravariant=True)
Value = TypeVar("Value", covariant=True)


class Result(Protocol[Value]):
    """The result of a job, now or later: Celery's `AsyncResult`."""

    id: str
    parent: Result[Any] | None
    #: What came of sending it.
    job: Sent

    def get(self, timeout: float | None = None, propagate: bool = True, interval: float = 0.5) -> Value:
        """Wait for the job's end and give what it returned, as JSON has it; raises what it raised."""
        ...

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> Value:
        """Wait as `get` does, in a coroutine."""
        ...

    def aprogress(self, *, interval: float = 0.5) -> AsyncIterator[Progress]:
        """Give the job's progress each time that it has changed, its end as the last."""
        ...

    def ready(self) -> bool: ...
    def successful(self) -> bool: ...
    def failed(self) -> bool: ...
    def forget(self) -> None: ...
    def revoke(self, *, terminate: bool = False, signal: str | None = None) -> None: ...

    @property
    def state(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def result(self) -> object: ...
    @property
    def info(self) -> object: ...
    @property
    def children(self) -> Sequence[Result[Any]] | None: ...
    @property
    def traceback(self) -> str | None: ...


class Signature(Protocol[Value]):
    """A task with arguments, to be sent or put into a canvas. What a link before it returns comes first."""

    def delay(self, *args: Any, **kwargs: Any) -> Result[Value]: ...
    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Result[Value]: ...

    async def adelay(self, *args: Any, **kwargs: Any) -> Result[Value]: ...
    async def aapply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Result[Value]: ...

    task: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Value: ...
    def set(self, **options: Any) -> Signature[Value]: ...
    def clone(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Signature[Value]: ...
    def link(self, callback: Signature[Any]) -> Signature[Any]: ...
    def link_error(self, errback: Signature[Any]) -> Signature[Any]: ...
    def __or__(self, other: Signature[_Next]) -> Signature[_Next]: ...


_Next = TypeVar("_Next")


class Task(Protocol[P, Value]):
    """What `@app.task` makes of a function."""

    name: str
    app: Celery
    #: Celery's `Context`: of the execution that is going on.
    request: Any

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Value: ...
    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Result[Value]: ...
    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> Result[Value]: ...
    async def aapply_async(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Result[Value]:
        """Send a job as `apply_async` does, in a coroutine."""
        ...

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        task_id: str | None = None,
        countdown: float | None = None,
        eta: datetime | None = None,
        expires: float | datetime | None = None,
        queue: str | None = None,
        priority: int | None = None,
        engine: Engine | str | None = None,
        tenant: str | None = None,
        user_id: UUID | str | None = None,
        job_metadata: Mapping[str, Any] | None = None,
        singleton_key: str | None = None,
        singleton_policy: SingletonPolicy | str | None = None,
        temporal_light: bool | None = None,
        **options: Any,
    ) -> Result[Value]:
        """Send a job with Celery's options and JobBridge's (docs/runners.md)."""
        ...

    def apply(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Result[Value]: ...
    def s(self, *args: Any, **kwargs: Any) -> Signature[Value]: ...
    def signature(
        self, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Signature[Value]: ...
    def map(self, items: Iterable[Any]) -> Signature[Any]: ...
    def starmap(self, items: Iterable[Any]) -> Signature[Any]: ...
    def chunks(self, items: Iterable[Any], size: int) -> Signature[Any]: ...
    def retry(self, **options: Any) -> Exception: ...
    def AsyncResult(self, task_id: str) -> Result[Value]: ...  # noqa: N802  # Celery's name
    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[Value]: ...


class Handler(Task[[Data | Mapping[str, Any]], Value], Protocol[Data, Value]):
    """What `@job` makes of a function `(ctx, data)`: a task of one argument, the data or what becomes it."""

    def __call__(self, data: Data | Mapping[str, Any] = ..., /, **fields: Any) -> Value: ...
    def delay(self, data: Data | Mapping[str, Any] = ..., /, **fields: Any) -> Result[Value]: ...
    async def adelay(self, data: Data | Mapping[str, Any] = ..., /, **fields: Any) -> Result[Value]: ...
    def si(self, data: Data | Mapping[str, Any] = ..., /, **fields: Any) -> Signature[Value]: ...
