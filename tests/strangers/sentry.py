"""An app watched by sentry-sdk as its documentation has it; what it would send goes to a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import sentry_sdk
from celery.signals import celeryd_init
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport

from jobbridge import Celery

app = Celery("strangers_sentry")


class _ToFile(Transport):
    def capture_envelope(self, envelope: Envelope) -> None:
        with Path(os.environ["STRANGERS_EVENTS"]).open("a") as file:
            for item in envelope.items:
                if item.type in ("event", "transaction"):
                    file.write(json.dumps(json.loads(item.get_bytes())) + "\n")


@celeryd_init.connect(weak=False)
def watch(**_: Any) -> None:
    sentry_sdk.init(
        dsn="https://key@sentry.invalid/1",
        transport=_ToFile,
        integrations=[CeleryIntegration()],
        traces_sample_rate=1.0,
        send_default_pii=True,
    )


@app.task(name="strangers.divide", bind=True, max_retries=1)
def divide(self: Any, number: int) -> float:
    if self.request.retries == 0:
        self.retry(countdown=0)
    return number / 0
