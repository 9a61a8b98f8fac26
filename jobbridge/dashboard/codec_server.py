"""A codec server for Temporal's web UI and its command line: it opens payloads for who may see them.

    POST /decode, POST /encode      {"payloads": [{"metadata": {…}, "data": "…"}]}, in Protobuf's JSON

Who asks needs a token of role operator, and of no one tenant: the web UI passes it along if it is given as its access
token, the command line as `--codec-auth "Bearer jbt_…"`. What cannot be opened for want of a key stays as it is.

Source: Temporal's documentation, "Codec Server".
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from temporalio.api.common.v1 import Payload, Payloads

from jobbridge.core.access import Role
from jobbridge.errors import EncryptionError
from jobbridge.temporal.wire.payloads import SealedPayloads

if TYPE_CHECKING:
    from jobbridge.codec.sealing import Codec
    from jobbridge.dashboard.access.identity import Authenticator

#: Bytes of a request, at most: Temporal's own limit of a call is four million.
LIMIT = 16 * 1024 * 1024


def make_codec_server(
    codec: Codec, authenticator: Authenticator, *, origins: Sequence[str] = ()
) -> Starlette:
    """Make the application.

    Args:
        codec: With the keys.
        authenticator: Who may come in.
        origins: Addresses of web UIs whose pages may ask, as `http://localhost:8233`.
    """
    payloads = SealedPayloads(codec)

    def sealed(payload: Payload) -> Payload:
        return payloads.seal(payload)

    def opened(payload: Payload) -> Payload:
        try:
            return payloads.open(payload)
        except EncryptionError:
            return payload

    def answering(change: Callable[[Payload], Payload]) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def answer(request: Request) -> Response:
            identity = await run_in_threadpool(authenticator.identify, request)
            if identity is None:
                return _refusal(401, "This needs a token.")
            if not identity.principal.may(Role.OPERATOR) or identity.principal.tenant is not None:
                return _refusal(403, "This needs the role operator, for all tenants.")
            if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                return _refusal(415, "Send JSON, with Content-Type: application/json.")
            given = await _payloads_in(request)
            if isinstance(given, Response):
                return given
            changed = Payloads(payloads=[change(each) for each in given.payloads])
            return JSONResponse(json_format.MessageToDict(changed), headers={"Cache-Control": "no-store"})

        return answer

    return Starlette(
        routes=[
            Route("/decode", answering(opened), methods=["POST"]),
            Route("/encode", answering(sealed), methods=["POST"]),
        ],
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=list(origins),
                allow_methods=["POST"],
                allow_headers=["authorization", "content-type", "x-namespace"],
                allow_credentials=True,
            )
        ],
    )


async def _payloads_in(request: Request) -> Payloads | Response:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LIMIT:
            return _refusal(413, f"That is more than {LIMIT:,} bytes.")
    try:
        return json_format.Parse(bytes(body), Payloads())
    except (json_format.ParseError, UnicodeDecodeError):
        return _refusal(400, "That is no list of payloads.")


def _refusal(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status_code=status)
