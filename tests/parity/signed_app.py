"""An app whose messages are signed, with the keys that the test has made."""

from __future__ import annotations

import os
from pathlib import Path

from tests.parity.tasks import make_app

_FOLDER = Path(os.environ["PARITY_FOLDER"])

app = make_app(include=["tests.parity.tasks"])
app.conf.update(
    security_key=str(_FOLDER / "key.pem"),
    security_certificate=str(_FOLDER / "certificate.pem"),
    security_cert_store=str(_FOLDER / "*.crt"),
    security_digest="sha256",
    task_serializer="auth",
    event_serializer="auth",
    accept_content=["auth"],
    result_serializer="json",
    result_accept_content=["json"],
)
app.setup_security()
