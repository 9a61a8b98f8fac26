"""One trace, from the call to the last child, whichever engines the jobs run on; and logs that say in which job."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from celery import chain
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from jobbridge.core.keys import Engine
from jobbridge.observability.setup import instrument
from tests.parity.conftest import World
from tests.support import wait_until

TIMEOUT = 30


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A span, however it came."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]


@dataclass
class Collector:
    """Receives spans as any collector of OpenTelemetry does."""

    address: str = ""
    spans: list[Seen] = field(default_factory=list)

    def receive(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    attributes = {
                        each.key: getattr(each.value, each.value.WhichOneof("value"))  # type: ignore[arg-type]  # one is set
                        for each in span.attributes
                    }
                    self.spans.append(
                        Seen(
                            name=span.name,
                            trace_id=span.trace_id.hex(),
                            span_id=span.span_id.hex(),
                            parent_id=span.parent_span_id.hex(),
                            attributes=attributes,
                        )
                    )


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            collector.receive(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    collector.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def engine() -> Engine:
    return Engine.TEMPORAL


@pytest.fixture
def collector(own_world: World) -> Iterator[Collector]:
    with collecting() as collector:
        own_world.environment |= {
            "JOB_RUNNER_TRACING": "true",
            "JOB_RUNNER_LOG_FORMAT": "json",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        yield collector


def test_one_trace_of_a_chain_across_engines_with_retries_and_children(
    own_world: World, collector: Collector
) -> None:
    world, ours = own_world, InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(ours))
    instrument(world.app, provider=provider)
    workers = [
        world.worker("-P", "prefork", "-c", "1", engine=Engine.CELERY),
        world.worker("-P", "threads", "-c", "2", engine=Engine.TEMPORAL),
    ]
    add, retried = world.task("add"), world.task("retry_until")
    family = world.app.signature("parity.fan_out", ({"children": 2},), immutable=True)  # not known here

    with provider.get_tracer("test").start_as_current_span("request") as request:
        last = chain(
            add.s(1, 2).set(engine="celery"),
            add.s(3).set(engine="temporal"),
            retried.si(1).set(engine="celery"),
            family.set(engine="temporal"),
        ).delay()
    assert last.get(timeout=TIMEOUT) is not None
    jobs = world.rows(
        "root_id = %s OR job_id = %s",
        world.row(_first(last).id)["job_id"],
        world.row(_first(last).id)["job_id"],
    )
    attempts = sum(row["attempt"] for row in jobs)

    def complete() -> list[Seen]:
        found = [span for span in collector.spans if span.name.startswith("process ")]
        assert len(found) == attempts, sorted(span.name for span in found)
        return list(collector.spans)

    spans = wait_until(complete, timeout=TIMEOUT)
    trace_id = f"{request.get_span_context().trace_id:032x}"
    assert {span.trace_id for span in spans} == {trace_id}
    known = {span.span_id for span in spans}
    known |= {f"{span.context.span_id:016x}" for span in ours.get_finished_spans() if span.context}
    assert all(span.parent_id in known for span in spans), "every span has its parent in the trace"

    first, second = (_run(spans, world, link) for link in (_first(last), _first(last, 1)))
    same = {
        "messaging.system": "jobbridge",
        "messaging.operation.type": "process",
        "jobbridge.job.type": "parity.add",
        "jobbridge.job.attempt": 1,
        "jobbridge.job.state": "success",
        "jobbridge.job.queue": "celery",
    }
    for span, own in ((first, "celery"), (second, "temporal")):
        assert span.attributes.items() >= (same | {"jobbridge.job.engine": own}).items()
    assert set(first.attributes) == set(second.attributes)
    sent = next(span for span in spans if span.span_id == second.parent_id)
    assert (sent.name, sent.parent_id) == ("send parity.add", first.span_id)
    children = [span for span in spans if span.name == "process parity.child"]
    assert len(children) == 2
    for worker in workers:
        _logs_say_in_which_job(worker.log_path.read_text())


def _first(last: Any, position: int = 0) -> Any:
    links = [last]
    while links[0].parent is not None:
        links.insert(0, links[0].parent)
    return links[position]


def _run(spans: list[Seen], world: World, result: Any) -> Seen:
    (found,) = [
        span
        for span in spans
        if span.name.startswith("process ") and span.attributes["jobbridge.job.id"] == result.id
    ]
    return found


def _logs_say_in_which_job(text: str) -> None:
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    of_jobs = [line for line in lines if line.get("job_id")]
    assert of_jobs
    for line in of_jobs:
        if line["logger"] == "celery.app.trace" and "trace_id" in line:
            assert line.keys() >= {
                "time",
                "level",
                "event",
                "job_id",
                "tenant",
                "attempt",
                "engine",
                "trace_id",
                "span_id",
            }
            return
    raise AssertionError([line["logger"] for line in of_jobs])
