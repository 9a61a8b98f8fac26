"""What went wrong, as a page or as JSON; of what is ours to repair, nothing that a stranger could use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from kombu.exceptions import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from jobbridge.dashboard.visits import Form, Visit
from jobbridge.errors import (
    CannotRetry,
    DatabaseUnavailable,
    DuplicateJob,
    EngineUnavailable,
    InvalidJobData,
    JobBridgeError,
    JobNotFound,
    ScheduleNotFound,
    TenantRequired,
    TokenRefused,
    UnknownHandler,
    UnsupportedOption,
)

if TYPE_CHECKING:
    from jobbridge.dashboard.application import Dashboard

logger = logging.getLogger(__name__)

#: Errors that say what the caller can do otherwise.
_THEIRS: Mapping[type[JobBridgeError], int] = {
    UnknownHandler: 404,
    JobNotFound: 404,
    ScheduleNotFound: 404,
    CannotRetry: 409,
    DuplicateJob: 409,
    TokenRefused: 409,
    InvalidJobData: 422,
    TenantRequired: 422,
    UnsupportedOption: 422,
}
_SHOWN = 20
_HINTS = {
    401: "Make one with `jobbridge tokens create NAME`.",
    404: "It may have been deleted, or belong to another tenant than the token's.",
    405: "See /api/v1/openapi.json for what there is.",
    429: "Come back after the time in Retry-After.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What is said of an error."""

    status: int
    text: str
    hint: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    problems: list[dict[str, str]] = field(default_factory=list)


def handlers(dashboard: Dashboard) -> dict[Any, Callable[[Request, Any], Coroutine[Any, Any, Response]]]:
    """Give what the application does with exceptions."""
    tell = _teller(dashboard)
    kinds = (HTTPException, RequestValidationError, JobBridgeError, OperationalError, Exception)
    return dict.fromkeys(kinds, tell)


def _teller(dashboard: Dashboard) -> Callable[[Request, Any], Coroutine[Any, Any, Response]]:
    async def tell(request: Request, error: Exception) -> Response:
        told = words(error)
        if told.status >= 500:
            logger.warning("dashboard.failed", extra={"path": request.url.path, "error": str(error)})
        if not _wants_page(request):
            content: dict[str, Any] = {"error": told.text, "hint": told.hint}
            if told.problems:
                content["problems"] = told.problems
            return JSONResponse(content, status_code=told.status, headers=dict(told.headers))
        visit = Visit(dashboard=dashboard, request=request, identity=None, form=Form())
        page = dashboard.page(
            visit, "error.html", status=told.status, status_code=told.status, text=told.text, hint=told.hint
        )
        page.headers.update(told.headers)
        return page

    return tell


def _wants_page(request: Request) -> bool:
    path = request.url.path.removeprefix(str(request.scope.get("root_path", "")).rstrip("/"))
    return not path.startswith("/api/") and "text/html" in request.headers.get("accept", "")


def words(error: Exception) -> Told:
    """Say what went wrong."""
    match error:
        case HTTPException():
            hint = _HINTS.get(error.status_code, "")
            return Told(status=error.status_code, text=error.detail, hint=hint, headers=error.headers or {})
        case RequestValidationError():
            return _of_values(error)
        case DatabaseUnavailable():
            hint = "Try again in a moment."
            return Told(
                status=503, text="The database cannot be reached.", hint=hint, headers={"Retry-After": "5"}
            )
        case EngineUnavailable():
            hint = "Try again in a moment; `jobbridge doctor` says what is wrong."
            return Told(
                status=503, text="Temporal cannot be reached.", hint=hint, headers={"Retry-After": "5"}
            )
        case OperationalError():
            hint = "Try again in a moment; `jobbridge doctor` says what is wrong."
            return Told(
                status=503, text="The broker cannot be reached.", hint=hint, headers={"Retry-After": "5"}
            )
        case JobBridgeError() if type(error) in _THEIRS:
            return Told(status=_THEIRS[type(error)], text=str(error), hint=error.hint)
        case _:
            return Told(status=500, text="That could not be done.", hint="The server's log says why.")


def refusal(error: JobBridgeError | OperationalError) -> HTTPException:
    """Say why something cannot be done to a job as it is: 409, or that it is a fault of ours, in words for anybody."""
    told = words(error)
    if told.status >= 500:
        return HTTPException(told.status, told.text, dict(told.headers))
    return HTTPException(409, f"{told.text} {told.hint}".strip())


def _of_values(error: RequestValidationError) -> Told:
    problems = [
        {"where": ".".join(map(str, problem["loc"])), "what": str(problem["msg"])}
        for problem in error.errors()[:_SHOWN]
    ]
    first = problems[0] if problems else {"where": "request", "what": "it cannot be read"}
    return Told(
        status=422,
        text=f"{first['where']}: {first['what']}.",
        hint="Correct it; /api/v1/openapi.json says what each value may be.",
        problems=problems,
    )
