"""`@job`: from a function `(ctx, data)` to a task of every app."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, get_type_hints, overload

from celery import current_app
from celery._state import _get_active_apps  # type: ignore[attr-defined]  # missing in the stubs
from celery.exceptions import Ignore, Reject, Retry
from celery.local import Proxy
from pydantic import BaseModel, ValidationError

from jobbridge.app.current import current
from jobbridge.app.execute.context import JobContext
from jobbridge.app.execute.tenancy import inherited_tenant
from jobbridge.app.loops import coroutines
from jobbridge.app.periodic import beat_schedule
from jobbridge.core.fanout import FAN_OUT_HEADER, FanOut
from jobbridge.core.handlers import DEFAULT_TIMEOUT, HandlerSpec, JobHandlerRegistry
from jobbridge.core.keys import SYSTEM_TENANT, Engine, TenantId
from jobbridge.core.retry import RetryPolicy
from jobbridge.core.rules.limits import concurrency_rules, rate_rules
from jobbridge.core.rules.unique import unique_rule
from jobbridge.core.schedules.definition import Recurrence
from jobbridge.core.tenant_names import tenant_named
from jobbridge.errors import (
    ChildrenFailed,
    InvalidJobData,
    JobCancelled,
    TenantRequired,
    UnsupportedOption,
)

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.types import Handler

Data = TypeVar("Data")
Value = TypeVar("Value")

#: What `@job` declared, before and whatever app takes it up; the like of Celery's shared tasks.
declared = JobHandlerRegistry()

#: After the timeout was raised in the handler, it has this long to end before its process is stopped.
KILL_GRACE = timedelta(seconds=10)


class Declare(Protocol):
    """Makes the task of a handler. A result is what JSON has of it: of a model its fields, of a fan-out numbers."""

    @overload
    def __call__(
        self, function: Callable[[JobContext, Data], BaseModel | FanOut], /
    ) -> Handler[Data, dict[str, Any]]: ...
    @overload
    def __call__(
        self, function: Callable[[JobContext, Data], Coroutine[Any, Any, Value]], /
    ) -> Handler[Data, Value]: ...
    @overload
    def __call__(self, function: Callable[[JobContext, Data], Value], /) -> Handler[Data, Value]: ...


def job(
    name: str,
    *,
    retry: RetryPolicy | None = None,
    timeout: timedelta | None = DEFAULT_TIMEOUT,
    queue: str | None = None,
    engine: Engine | str | None = None,
    priority: int | None = None,
    tenant_required: bool = False,
    schedule: str | timedelta | Recurrence | None = None,
    description: str | None = None,
    enterprise_only: bool = False,
    temporal_light: bool | None = None,
    concurrency: Any = None,
    rate_limit: Any = None,
    unique: Any = None,
    throttle: Any = None,
    debounce: Any = None,
    force: bool = False,
) -> Declare:
    """Declare a handler `(ctx, data)`; gives back the Celery task, so `handler.delay({...})` sends a job.

    Args:
        name: The task's name, and the workflow's jobName.
        retry: Three attempts, 1 s, 2 s, at most 30 s apart, unless said otherwise; also by kind of error.
        timeout: For one attempt, 5 minutes unless said otherwise; None: no limit.
        queue: A Celery queue; on Temporal the task queue of that name.
        engine: Always this engine, whatever JOB_RUNNER_TYPE says.
        priority: 0 to 9, higher first.
        tenant_required: Refuse to send it for no tenant.
        schedule: Cron (five fields), an interval, or a Recurrence that says more.
        description: One line for lists; else the docstring's first line.
        enterprise_only: Not registered in the community edition.
        temporal_light: On Temporal without a workflow of its own; None: as TEMPORAL_LIGHT says.
        concurrency: How many of it run at once, in all workers: a number, or `{"limit": 3, "per": "tenant"}`
            (docs/rules.md).
        rate_limit: How many of it begin in a time, in all workers: `"100/s"`, or `{"limit": "10/m", "key": "{host}"}`.
        unique: Whether it is left out while another of the same arguments is there: True, or a mapping.
        throttle: For how many seconds after one was sent others are left out.
        debounce: For how many seconds it waits; one that is sent meanwhile takes its place, and waits anew.
        force: Replace a handler of that name.

    Raises:
        DuplicateHandler: Another function has that name.
        UnsupportedOption: The schedule cannot be honoured; or it has one and needs a tenant, which beat does not know.
    """
    if schedule is not None:
        beat_schedule(schedule)
        if tenant_required:
            raise UnsupportedOption(
                f"The handler {name!r} has a schedule and needs a tenant: its fires would belong to nobody.",
                hint="Schedule a handler of the system that sends one job for each tenant.",
            )

    def declare(function: Callable[..., Any]) -> Any:
        spec = HandlerSpec(
            name=name,
            function=function,
            data_model=_data_model(function),
            retry=retry or RetryPolicy(),
            timeout=timeout,
            queue=queue,
            engine=Engine.parse(str(engine)) if engine is not None else None,
            priority=priority,
            tenant_required=tenant_required,
            schedule=schedule,
            description=description or (inspect.getdoc(function) or "").partition("\n")[0],
            enterprise_only=enterprise_only,
            temporal_light=temporal_light,
            concurrency=concurrency_rules(concurrency),
            rate_limit=rate_rules(rate_limit),
            unique=unique_rule("unique", unique),
            throttle=unique_rule("throttle", throttle),
            debounce=unique_rule("debounce", debounce),
        )
        declared.register(spec, force=force)
        for app in _get_active_apps():
            if app.finalized and getattr(app, "is_jobbridge", False) and is_offered(app, spec):
                add_handler(app, spec, replace=force)
        return Proxy(
            lambda: (current() or current_app).tasks[name], name=function.__name__, __doc__=function.__doc__
        )

    return declare


def add_declared_handlers(app: Celery) -> None:
    """Make a task of each declared handler that the app's edition has."""
    for spec in declared:
        if is_offered(app, spec):
            add_handler(app, spec)


def is_offered(app: Celery, spec: HandlerSpec) -> bool:
    """Whether the app's edition has that handler."""
    return not spec.enterprise_only or app.settings.edition == "enterprise"


def add_handler(app: Celery, spec: HandlerSpec, *, replace: bool = False) -> Any:
    """Make the task of one handler in one app."""
    if replace:
        app._tasks.pop(spec.name, None)
    limit = spec.timeout.total_seconds() if spec.timeout else None
    if spec.schedule is not None:
        app.add_periodic_task(
            beat_schedule(spec.schedule), app.signature(spec.name, args=({},)), name=spec.name
        )
    return app._task_from_fun(
        _run_handler,
        name=spec.name,
        base=_handler_task_class(app.Task),
        bind=True,
        spec=spec,
        __doc__=spec.function.__doc__,
        engine=spec.engine,
        temporal_light=spec.temporal_light,
        concurrency=spec.concurrency or None,
        fleet_rate_limit=spec.rate_limit or None,
        unique=spec.unique,
        throttle=spec.throttle,
        debounce=spec.debounce,
        max_retries=spec.retry.most_attempts - 1,
        soft_time_limit=limit,
        time_limit=None if limit is None else limit + KILL_GRACE.total_seconds(),
        typing=False,
    )


def _run_handler(task: Any, data: Any = None) -> Any:
    spec: HandlerSpec = task.spec
    context = JobContext(task)
    # A client that is not ours may have sent anything, and no further attempt would cure it.
    checked = parse_data(spec, data)
    if spec.tenant_required and context.tenant_id == SYSTEM_TENANT:
        raise TenantRequired.by(spec.name)
    try:
        if task.request.get(FAN_OUT_HEADER):
            return task.app.fan_outs.resume(task)
        value = spec.function(context, checked)
        value = coroutines.run(value, task) if inspect.iscoroutine(value) else value
        return task.app.fan_outs.begin(task, value) if _is_fan_out(context, value) else _plain(value)
    except (Retry, Ignore, Reject, ChildrenFailed):
        raise
    except JobCancelled as error:
        raise Ignore(str(error)) from None  # the row says `cancelled` already
    except Exception as error:
        if spec.retry.allows_another(error, task.request.retries + 1) and not task.request.is_eager:
            wait = spec.retry.wait_after(task.request.retries + 1, error)
            raise task.retry(exc=error, countdown=wait.total_seconds()) from error
        raise


def _is_fan_out(context: JobContext, value: Any) -> bool:
    if context.fanned_out is not None and value is not context.fanned_out:
        raise UnsupportedOption(
            f"The handler {context.name!r} called ctx.fan_out and did not return what it gave: nothing was sent.",
            hint="Write `return ctx.fan_out(...)`; one for each attempt.",
        )
    return isinstance(value, FanOut)


def parse_data(spec: HandlerSpec, data: Any) -> Any:
    """Give the data as the handler wants it.

    Raises:
        InvalidJobData: It does not fit the model.
    """
    if spec.data_model is None or isinstance(data, spec.data_model):
        return data
    try:
        return spec.data_model.model_validate(data if data is not None else {})
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'data'}: {problem['msg']}" for problem in error.errors()
        )
        raise InvalidJobData.of(spec.name, problems) from None


def _handler_task_class(base: type[Any]) -> type[Any]:
    return type("JobTask", (_HandlerTask, base), {"abstract": True})


class _HandlerTask:
    """What a handler's task adds to Celery's: its data is one argument, checked before it is sent."""

    abstract = True
    spec: HandlerSpec

    def prepare_arguments(
        self, args: Any, kwargs: Mapping[str, Any], tenant: TenantId | None
    ) -> tuple[list[Any], dict[str, Any], TenantId | None]:
        """Check data and tenant before anything is written.

        Returns:
            The arguments as they are sent, and the tenant (else the one in the data, else the current one).

        Raises:
            InvalidJobData: The data does not fit.
            TenantRequired: There is no tenant.
        """
        data = _plain(_one_argument(self.spec.name, args, kwargs))
        parse_data(self.spec, data)
        tenant = tenant or tenant_in(data)
        if self.spec.tenant_required:
            tenant = tenant or inherited_tenant()
        if self.spec.tenant_required and tenant in (None, SYSTEM_TENANT):
            raise TenantRequired.by(self.spec.name)
        return [data], {}, tenant

    def _get_exec_options(self) -> dict[str, Any]:
        # Celery deprecates these as attributes of a task; here they are options of each message.
        options: dict[str, Any] = dict(super()._get_exec_options())  # type: ignore[misc]  # the task class behind it
        for name, value in (("queue", self.spec.queue), ("priority", self.spec.priority)):
            if value is not None and options.get(name) is None:
                options[name] = value
        return options

    def readable_arguments(self, args: Any, kwargs: Mapping[str, Any]) -> Any:
        return args[0] if args else dict(kwargs)


def tenant_in(data: Any) -> TenantId | None:
    """Find the tenant in a job's data, where the original system has it.

    Raises:
        UnsupportedOption: It cannot be a tenant.
    """
    if not isinstance(data, Mapping):
        return None
    value = data.get("tenantId") or data.get("tenant_id") or data.get("tenant")
    return tenant_named(str(value)) if value else None


def _one_argument(name: str, args: Any, kwargs: Mapping[str, Any]) -> Any:
    if (args and kwargs) or len(args or ()) > 1:
        raise InvalidJobData.of(name, "a handler takes one argument: its data")
    return args[0] if args else dict(kwargs)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True) if isinstance(value, BaseModel) else value


def _data_model(function: Callable[..., Any]) -> type[BaseModel] | None:
    parameters = list(inspect.signature(function).parameters)
    if len(parameters) < 2:
        raise TypeError(
            f"{function.__qualname__} must take (ctx, data), and takes {len(parameters)} argument(s)."
        )
    try:
        hint = get_type_hints(function).get(parameters[1])
    except NameError:
        return None  # a name that is not importable at run time: the data is passed as it came
    return hint if isinstance(hint, type) and issubclass(hint, BaseModel) else None
