"""An app traced by opentelemetry-instrumentation-celery as its documentation has it; the spans go to a file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from celery.signals import worker_process_init
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from jobbridge import Celery

app = Celery("strangers_spans")


class _ToFile(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with Path(os.environ["STRANGERS_SPANS"]).open("a") as file:
            file.writelines(span.to_json(indent=None) + "\n" for span in spans)
        return SpanExportResult.SUCCESS


@worker_process_init.connect(weak=False)
def instrument(**_: Any) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_ToFile()))
    trace.set_tracer_provider(provider)
    CeleryInstrumentor().instrument()


@app.task(name="strangers.first")
def first() -> str:
    return str(second.delay())


@app.task(name="strangers.second", bind=True, max_retries=1)
def second(self: Any) -> None:
    if self.request.retries == 0:
        self.retry(countdown=0)
    raise ValueError("no")
