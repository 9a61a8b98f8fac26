"""Switches observation on: by settings (`JOB_RUNNER_TRACING`), or by a call in the application's own code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobbridge.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from jobbridge.app.application import Celery
    from jobbridge.app.observer import Observer


def instrument(app: Celery, *, provider: TracerProvider | None = None) -> Observer:
    """Trace the jobs that this app sends and runs.

    Args:
        app: Whose jobs.
        provider: Where spans go; by default the provider that the process has set, or sets later. If nobody sets one,
            nothing is recorded, and the context is passed on all the same.

    Raises:
        ConfigurationError: OpenTelemetry is not installed.
    """
    try:
        from jobbridge.observability.tracing import Tracer
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise ConfigurationError(
            "Tracing needs OpenTelemetry, which is not installed.",
            hint="Install it with `pip install 'jobbridge[otel]'`.",
        ) from None
    tracer = Tracer(app, provider)
    tracer.connect()
    app.observer = tracer
    return tracer


def instrument_from_settings(app: Celery) -> Observer:
    """Trace with a provider that OpenTelemetry's own variables configure.

    A provider that the process has set already is left as it is.

    Raises:
        ConfigurationError: OpenTelemetry, or its exporter, is not installed.
    """
    observer = instrument(app)
    _provide()
    return observer


def _provide() -> None:
    from opentelemetry import trace
    from opentelemetry.trace import ProxyTracerProvider

    if not isinstance(trace.get_tracer_provider(), ProxyTracerProvider):
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise ConfigurationError(
            "JOB_RUNNER_TRACING needs OpenTelemetry's SDK and its OTLP exporter, which are not installed.",
            hint="Install them with `pip install 'jobbridge[otel]'`, or set a provider of your own.",
        ) from None
    # Name, resource, endpoint, headers, sampler, batching: OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_ENDPOINT and so on are
    # read by the SDK itself. Its batch processor begins anew in a forked child (opentelemetry-sdk 1.45).
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
