"""From the route table to FastAPI: each rule of the API becomes a route behind the guard, with its part of OpenAPI."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from fastapi import Depends, Query
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, request_response
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from jobbridge.dashboard.access import bodies
from jobbridge.dashboard.access.guard import admit
from jobbridge.dashboard.access.request_context import Form, RequestContext, Rule
from jobbridge.dashboard.api.documents.responses import Answer, Problem

if TYPE_CHECKING:
    from jobbridge.dashboard.application import Dashboard

PREFIX = "/api/v1"

_WORDS = {
    400: "The request is not one that can be read.",
    401: "No token came with it, or one that is of no use.",
    403: "The token's role is not enough.",
    404: "There is none, or none that this token may see.",
    409: "It is not in a state in which that can be done.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "A value does not fit; `problems` says which.",
    429: "Too many requests; `Retry-After` says when to come back.",
    503: "The database, or the engine, cannot be reached. Safe to send again with an idempotency key.",
}
_ALWAYS = (401, 403, 422, 503)
_WITH_BODY = (413, 415)


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiRule(Rule):
    """A line of the route table whose endpoint is FastAPI's: its annotations are the schema.

    Attributes:
        tag: Under what it is listed.
        errors: Statuses that it may end with, beside those which each route may.
        status: Of an answer that is good.
        more: Further answers that are good: status, words and shape.
    """

    is_api: bool = True
    tag: str = "jobs"
    errors: tuple[int, ...] = ()
    status: int = 200
    more: tuple[tuple[int, str, type[Answer]], ...] = ()


class GuardedRoute(APIRoute):
    """A route of FastAPI that reads nothing of a request before the guard has let it in."""

    def __init__(self, dashboard: Dashboard, rule: ApiRule) -> None:
        self.__dict__.update(_read(rule).__dict__)
        self._dashboard, self._rule = dashboard, rule
        self.app = request_response(self.get_route_handler())  # the last line of APIRoute's own

    # FastAPI gives a GET no HEAD. As one of its methods it would be in the description, as an operation of its own.

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(_as_get(scope))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().handle(_as_get(scope), receive, send)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()
        dashboard, rule, known = self._dashboard, self._rule, _query_names(self.dependant)

        async def handle(request: Request) -> Response:
            context = await admit(dashboard, rule, request, Form())
            if isinstance(context, Response):
                return context
            _refuse_unknown(request, known)
            request.state.context = context
            if rule.changes:
                # FastAPI reads the body through these (starlette 1.10, `Request.body` and `.json`): it is here already.
                value = await bodies.read(request)
                request._body = b"" if value is None else b"{}"
                request._json = value
            return await inner(request)

        return handle


@functools.cache
def _read(rule: ApiRule) -> APIRoute:
    """Give what FastAPI makes of a rule's annotations: some ten models a route, the same for each dashboard."""
    return APIRoute(
        rule.path,
        rule.endpoint,
        methods=list(rule.methods),
        name=rule.name,
        operation_id=rule.name,
        tags=[rule.tag],
        summary=_summary(rule.endpoint),
        description=_description(rule),
        status_code=rule.status,
        responses=_responses(rule),
    )


def _as_get(scope: Scope) -> Scope:
    """Answer HEAD as GET; the server leaves out the body."""
    return {**scope, "method": "GET"} if scope.get("method") == "HEAD" else scope


def _query_names(dependant: Dependant) -> dict[str, bool]:
    """Name the parameters of a query, and tell which may be there several times."""
    names = {
        parameter.alias: _is_list(parameter.field_info.annotation) for parameter in dependant.query_params
    }
    for inner in dependant.dependencies:
        names |= _query_names(inner)
    return names


def _is_list(annotation: Any) -> bool:
    return list in {get_origin(each) for each in (annotation, *get_args(annotation))}


def _refuse_unknown(request: Request, known: Mapping[str, bool]) -> None:
    """Refuse a filter that there is not: who mistypes one would be given everything. And one of two values."""
    words = f"There is none of that name; use {', '.join(sorted(known))}"
    flaws = [(name, words) for name in sorted(set(request.query_params) - set(known))]
    flaws += [
        (name, "It is there several times; send it once")
        for name, is_list in known.items()
        if not is_list and len(request.query_params.getlist(name)) > 1
    ]
    if flaws:
        raise RequestValidationError(
            [
                {"type": "extra_forbidden", "loc": ("query", name), "msg": words, "input": None}
                for name, words in flaws
            ]
        )


async def _context_of(
    request: Request,
    tenant: Annotated[
        str | None,
        Query(max_length=255, description="Only of this tenant. A token that is bound to one sees no other."),
    ] = None,
) -> RequestContext:
    context: RequestContext = request.state.context
    return context


#: What an endpoint of the API takes, as that of a page does.
Asked = Annotated[RequestContext, Depends(_context_of)]


def describe(routes: Sequence[Any]) -> dict[str, Any]:
    """Give the OpenAPI document of some routes."""
    document: dict[str, Any] = get_openapi(
        title="JobBridge",
        version="1",
        openapi_version="3.1.0",
        summary="Background jobs of both engines.",
        description=_ABOUT,
        routes=[route for route in routes if isinstance(route, GuardedRoute)],
    )
    document.setdefault("components", {})["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of `jobbridge tokens create`.",
        }
    }
    document["security"] = [{"token": []}]
    return document


_ABOUT = """Every answer that is no success has the shape `Problem`. What belongs to another tenant is answered as what
is not there. Send a token as `Authorization: Bearer …`."""


def _summary(endpoint: Callable[..., Any]) -> str:
    return (endpoint.__doc__ or "").strip().partition("\n")[0].rstrip(".")


def _description(rule: ApiRule) -> str:
    _, _, rest = (rule.endpoint.__doc__ or "").strip().partition("\n")
    whom = "everybody" if rule.needs is None else f"the role {rule.needs.value}"
    scope = ", of a token that is bound to no tenant" if rule.is_global else ""
    body = " ".join(line.strip() for line in rest.splitlines()).strip()
    return f"{body}\n\nNeeds {whom}{scope}.".strip()


def _responses(rule: ApiRule) -> dict[int | str, dict[str, Any]]:
    statuses = {*_ALWAYS, *rule.errors, *(_WITH_BODY if rule.changes else ())}
    if rule.is_global:
        statuses.add(404)
    told: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": _WORDS[status]} for status in sorted(statuses)
    }
    told[401]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    for status, words, model in rule.more:
        told[status] = {"model": model, "description": words}
    return told
