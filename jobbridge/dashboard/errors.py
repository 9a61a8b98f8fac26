"""What went wrong, as a page or as JSON; of what is ours to repair, nothing that a stranger could use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from kombu.exceptions import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from jobbridge.dashboard.access.request_context import Form, RequestContext
from jobbridge.errors import (
    CannotRetry,
    DatabaseError,
    DatabaseUnavailable,
    DuplicateJob,
    EncryptionError,
    EngineUnavailable,
    InvalidJobData,
    JobBridgeError,
    JobNotFound,
    PayloadTooLarge,
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
    EncryptionError: 409,
    DuplicateJob: 409,
    TokenRefused: 409,
    InvalidJobData: 422,
    TenantRequired: 422,
    PayloadTooLarge: 413,
    UnsupportedOption: 422,
}
_SHOWN = 20
_HINTS = {
    400: "Correct the address; an empty value leaves a filter out.",
    401: "Make one with `jobbridge tokens create NAME`.",
    403: "Use a token that may do it; if this was a form, load its page again.",
    404: "It may have been deleted, or belong to another tenant than the token's.",
    405: "Use a method that Allow names; /api/v1/openapi.json says what each does.",
    409: "Look at it as it is now, and decide anew.",
    413: "Send less at once.",
    415: "Send JSON, with Content-Type: application/json.",
    422: "Correct it; /api/v1/openapi.json says what each value may be.",
    429: "Come back after the time in Retry-After.",
    503: "Try again in a moment.",
}


class Refused(HTTPException):
    """What cannot be done, and what to do instead.

    Args:
        status: Of the answer.
        text: What is wrong.
        hint: In the imperative.
        headers: Of the answer.
    """

    def __init__(
        self, status: int, text: str, *, hint: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, text, dict(headers or {}))
        self.hint = hint


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
        if told.status == 405:
            told = replace(told, headers={"Allow": _allowed(dashboard, request)})
        if not _wants_page(request):
            content: dict[str, Any] = {"error": told.text, "hint": told.hint}
            if told.problems:
                content["problems"] = told.problems
            return JSONResponse(content, status_code=told.status, headers=dict(told.headers))
        context = RequestContext(dashboard=dashboard, request=request, identity=None, form=Form())
        page = dashboard.page(
            context, "error.html", status=told.status, status_code=told.status, text=told.text, hint=told.hint
        )
        page.headers.update(told.headers)
        return page

    return tell


def _allowed(dashboard: Dashboard, request: Request) -> str:
    """Name the methods of all routes of a path: each route knows its own only (starlette 1.10, `Route.handle`)."""
    routes = [route for route in dashboard.router.routes if isinstance(route, Route)]
    methods = {
        method
        for route in routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def _wants_page(request: Request) -> bool:
    path = request.url.path.removeprefix(str(request.scope.get("root_path", "")).rstrip("/"))
    return not path.startswith("/api/") and "text/html" in request.headers.get("accept", "")


def words(error: Exception) -> Told:
    """Say what went wrong."""
    match error:
        case Refused():
            headers = error.headers or {}
            return Told(status=error.status_code, text=error.detail, hint=error.hint, headers=headers)
        case HTTPException():
            hint = _HINTS.get(error.status_code, "")
            return Told(status=error.status_code, text=error.detail, hint=hint, headers=error.headers or {})
        case RequestValidationError():
            return _of_values(error)
        case DatabaseUnavailable():
            return _away("The database", hint="Try again in a moment.")
        case DatabaseError():
            text = "The tables are not those of this release."
            hint = "Run `jobbridge migrate`, or upgrade this installation; `jobbridge doctor` says which."
            return Told(status=503, text=text, hint=hint, headers={"Retry-After": "60"})
        case EngineUnavailable():
            return _away("Temporal")
        case OperationalError():
            return _away("The broker")
        case JobBridgeError() if (status := _status_of(error)) is not None:
            return Told(status=status, text=str(error), hint=error.hint)
        case _:
            return Told(status=500, text="That could not be done.", hint="The server's log says why.")


def _status_of(error: JobBridgeError) -> int | None:
    """Give the status of an error, or of what it is a kind of: some are kombu's at the same time (`app.errors`)."""
    return next((_THEIRS[kind] for kind in type(error).__mro__ if kind in _THEIRS), None)


def _away(what: str, *, hint: str = "Try again in a moment; `jobbridge doctor` says what is wrong.") -> Told:
    return Told(status=503, text=f"{what} cannot be reached.", hint=hint, headers={"Retry-After": "5"})


def refusal(error: JobBridgeError | OperationalError, *, hint: str | None = None) -> Refused:
    """Say why something cannot be done to a job as it is: 409, or that it is a fault of ours, in words for anybody.

    Args:
        error: What kept it.
        hint: What to do, if that is not what the error says.
    """
    told = words(error)
    status = told.status if told.status >= 500 else 409
    return Refused(status, told.text, hint=hint or told.hint, headers=told.headers)


def _of_values(error: RequestValidationError) -> Told:
    problems = [
        {"where": ".".join(map(str, problem["loc"])), "what": str(problem["msg"])}
        for problem in error.errors()[:_SHOWN]
    ]
    first = problems[0] if problems else {"where": "request", "what": "it cannot be read"}
    return Told(
        status=422,
        text=f"{first['where']}: {first['what']}.",
        hint=_HINTS[422],
        problems=problems,
    )
