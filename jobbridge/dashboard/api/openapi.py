"""The API's description: as OpenAPI for tools, as a plain page for people."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from jobbridge.core.access import Role
from jobbridge.dashboard.access.request_context import RequestContext, Rule
from jobbridge.dashboard.api.rules import PREFIX, describe
from jobbridge.dashboard.pages.public import WORDS


def openapi(context: RequestContext) -> Response:
    """Give the OpenAPI document."""
    return JSONResponse(_document(context))


def index(context: RequestContext) -> Response:
    """Show what the API has."""
    document = _document(context)
    operations = [
        (method.upper(), path, told)
        for path, methods in document["paths"].items()
        for method, told in methods.items()
    ]
    return context.dashboard.page(context, "api.html", operations=operations)


def _document(context: RequestContext) -> dict[str, Any]:
    dashboard = context.dashboard
    if dashboard.description is None:
        dashboard.description = describe(dashboard.router.routes)
        paths = dashboard.description["paths"]
        paths.setdefault(f"{PREFIX}/events", {})["get"] = _EVENTS
        paths["/public/jobs/{link}"] = {"get": _PUBLIC}
    root = str(context.request.scope.get("root_path", "")).rstrip("/")
    return dashboard.description | {"servers": [{"url": root or "/"}]}


def _problem(words: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": words, "content": {"application/json": {"schema": schema}}}


#: FastAPI describes no stream of ours.
_EVENTS = {
    "operationId": "api_events",
    "tags": ["jobs"],
    "summary": "Tell of changes of jobs as they happen, as Server-Sent Events",
    "description": "Takes filters as the list of jobs does, or a `job_id`. The events: `open`, `jobs` (changed jobs), "
    "`counts`, and `reset` (something may have been missed: read anew). Send the last id as `Last-Event-ID` to go on "
    "where a stream ended.\n\nNeeds the role viewer.",
    "parameters": [
        *(
            {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
            for name in ("job_id", "type", "engine", "queue", "tenant")
        ),
        {
            "name": "status",
            "in": "query",
            "required": False,
            "description": "The new state; several.",
            "schema": {"type": "array", "items": {"$ref": "#/components/schemas/JobStatus"}},
        },
        {"name": "Last-Event-ID", "in": "header", "required": False, "schema": {"type": "string"}},
    ],
    "responses": {
        "200": {"description": "A stream that does not end by itself.", "content": {"text/event-stream": {}}},
        **{
            status: _problem(words)
            for status, words in (
                ("400", "A filter is not one of those there are."),
                ("401", "No token came with it, or one that is of no use."),
                ("404", "There is no such job, or none that this token may see."),
                ("429", "Too many streams of this token are open."),
                ("503", "Too many streams are open."),
            )
        },
    },
}

_AT = {"type": ["string", "null"], "format": "date-time"}

#: Nor what is a page for whoever wants one.
_PUBLIC = {
    "operationId": "public_job",
    "tags": ["jobs"],
    "summary": "Show a customer how far a job is, by the link that was made for it",
    "description": "No names, no data, no errors. Without a token; `Accept: text/html` gives a page.",
    "security": [],
    "parameters": [{"name": "link", "in": "path", "required": True, "schema": {"type": "string"}}],
    "responses": {
        "200": {
            "description": "How far it is.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            "status": {"type": "string", "enum": sorted(set(WORDS.values()))},
                            "progress": {"type": ["integer", "null"], "minimum": 0, "maximum": 100},
                            "asked_at": {"type": "string", "format": "date-time"},
                            "began_at": _AT,
                            "ended_at": _AT,
                        },
                        "required": ["status", "progress", "asked_at", "began_at", "ended_at"],
                        "additionalProperties": False,
                    }
                }
            },
        },
        "404": _problem("The link is mistyped, made up, expired or revoked, or its job is gone: all alike."),
        "429": _problem("Too many requests from this address; `Retry-After` says when to come back."),
        "503": _problem("The database cannot be reached."),
    },
}

RULES = (
    Rule(f"{PREFIX}/openapi.json", "api_description", openapi, None, is_api=True),
    Rule("/api", "api_index", index, Role.VIEWER),
)
