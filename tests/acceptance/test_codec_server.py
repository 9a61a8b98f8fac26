"""The codec server as a user starts it, asked as Temporal's web UI asks: a preflight, then `POST /decode`."""

from __future__ import annotations

import base64
import json
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from temporalio.api.common.v1 import Payload

from jobbridge.codec.sealing import Codec
from jobbridge.temporal.wire.payloads import SealedPayloads
from tests.acceptance.commands import JOBBRIDGE, run_jobbridge, start
from tests.support import wait_until

UI = "https://temporal.example"
SECRET = "the-patient-is-called-Ekaterina"


def ask(url: str, method: str, body: object = None, **headers: str) -> tuple[int, Any, Any]:
    request = urllib.request.Request(
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers, refused.read()


def test_temporals_web_ui_has_payloads_decrypted(tmp_path: Path, database_url: str) -> None:
    key = f"one:{base64.b64encode(os.urandom(32)).decode()}"
    settings = {"DATABASE_URL": database_url, "JOBBRIDGE_ENCRYPTION_KEYS": key, "TEMPORAL_UI_URL": f"{UI}/ui"}
    made = run_jobbridge("tokens", "create", "ui", "--role", "operator", cwd=tmp_path, **settings)
    token = re.search(r"jbt_\S+", made.stdout)
    assert token is not None, made.stdout + made.stderr
    plain = Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(SECRET).encode())
    sealed = SealedPayloads(Codec.of(key), "workflow-1").seal(plain)
    server = start([*JOBBRIDGE, "codec-server", "--port", "0"], cwd=tmp_path, settings=settings)
    try:
        listening = wait_until(
            lambda: re.search(r"running on (http://127\.0\.0\.1:\d+)", server.log()) or not server.is_running,
            timeout=60,
        )
        assert isinstance(listening, re.Match), server.log()
        decode = f"{listening[1]}/decode"

        asked = {
            "access_control_request_method": "POST",
            "access_control_request_headers": "authorization,content-type,x-namespace",
        }
        status, headers, _ = ask(decode, "OPTIONS", origin=UI, **asked)
        assert (status, headers["access-control-allow-origin"]) == (200, UI)
        assert headers["access-control-allow-credentials"] == "true"
        assert "x-namespace" in headers["access-control-allow-headers"].lower()
        status, headers, _ = ask(decode, "OPTIONS", origin="https://evil.example", **asked)
        assert (status, headers["access-control-allow-origin"]) == (400, None)

        body = {"payloads": [in_json(sealed)]}
        told = {"origin": UI, "content_type": "application/json", "x_namespace": "default"}
        status, _, text = ask(decode, "POST", body, **told)
        assert (status, json.loads(text)) == (401, {"error": "This needs a token."})
        status, headers, text = ask(decode, "POST", body, **told, authorization=f"Bearer {token[0]}")
        assert (status, headers["access-control-allow-origin"]) == (200, UI)
        assert json.loads(text) == {"payloads": [in_json(plain)]}
        assert server.is_running
    finally:
        server.stop()
    assert SECRET not in server.log()
    assert token[0] not in server.log()


def in_json(payload: Payload) -> dict[str, Any]:
    metadata = {name: base64.b64encode(value).decode() for name, value in payload.metadata.items()}
    return {"metadata": metadata, "data": base64.b64encode(payload.data).decode()}
