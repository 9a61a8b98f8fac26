"""What spans say of a job that is sent again, and of what could not be sent; without a worker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from kombu.exceptions import EncodeError
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.core.events import Failed
from jobbridge.core.keys import Engine, JobKey
from jobbridge.dashboard.application import make_dashboard
from jobbridge.observability.setup import instrument
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.jobs.rows import JobRow
from tests.parity.tasks import make_app


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    yield app
    app.close()


@pytest.fixture
def provider() -> TracerProvider:
    return TracerProvider()


@pytest.fixture
def spans(app: Celery, provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrument(app, provider=provider)
    return exporter


def sent_by(spans: InMemorySpanExporter, job_id: Any) -> ReadableSpan:
    """Give the newest sending of a job."""
    return [
        span
        for span in spans.get_finished_spans()
        if (span.attributes or {}).get("jobbridge.job.id") == str(job_id)
    ][-1]


def failed(app: Celery, **options: Any) -> JobRow:
    row = app.jobs.find(app.enqueue("parity.total", [[1]], **options).job_id)
    assert row is not None
    app.recorder.record(Failed(key=row.key, attempt=None, error="no"))
    return row


def place(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def linked(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("as_new", [False, True])
def test_a_job_that_is_sent_again_has_a_link_to_its_former_trace(
    app: Celery, spans: InMemorySpanExporter, engine: Engine, as_new: bool
) -> None:
    row = failed(app, engine=engine, metadata={"invoice": 42})
    first = place(sent_by(spans, row.job_id))

    again = app.retry_job(row.job_id, as_new=as_new)
    second = sent_by(spans, again.job_id)
    app.recorder.record(Failed(key=again.key, attempt=None, error="no"))
    third = sent_by(spans, app.retry_job(again.job_id).job_id)

    assert linked(second) == [first]
    assert place(second)[0] != first[0]
    assert linked(third) == [place(second)]
    assert again.metadata["invoice"] == 42
    trace_id, span_id = place(second)
    assert again.metadata["traceparent"].startswith(f"00-{trace_id:032x}-{span_id:016x}-")


def test_a_job_that_runs_again_with_edited_data_has_the_link_too(
    app: Celery, spans: InMemorySpanExporter
) -> None:
    row = failed(app)
    token, _ = AccessStore(app.database).create(str(uuid4()), Role.OPERATOR)
    client = TestClient(make_dashboard(app), headers={"authorization": f"Bearer {token}"})

    answer = client.post(
        f"/jobs/{row.job_id}/edit",
        data={"data": '{"args": [[2]], "kwargs": {}}'},
        follow_redirects=False,
    )

    new = answer.headers["location"].partition("?")[0].rpartition("/")[2]
    assert new != str(row.job_id)
    assert linked(sent_by(spans, new)) == [place(sent_by(spans, row.job_id))]


def test_where_nothing_is_traced_the_former_trace_is_forgotten(
    app: Celery, spans: InMemorySpanExporter
) -> None:
    row = failed(app)
    app.observer = None

    assert "traceparent" not in app.retry_job(row.job_id, as_new=True).metadata
    assert "traceparent" in row.metadata


def test_a_job_of_no_trace_is_sent_again_without_a_link(
    app: Celery, provider: TracerProvider, spans: InMemorySpanExporter
) -> None:
    tracer, app.observer = app.observer, None
    rows = [failed(app), failed(app, metadata={"traceparent": "no trace"})]
    app.observer = tracer

    for row in rows:
        assert linked(sent_by(spans, app.retry_job(row.job_id, as_new=True).job_id)) == []


def test_what_could_not_be_sent_says_by_which_error(app: Celery, spans: InMemorySpanExporter) -> None:
    with pytest.raises(EncodeError):
        app.tasks["parity.total"].apply_async([object()])

    [span] = spans.get_finished_spans()
    assert (span.attributes or {})["error.type"] == "kombu.exceptions.EncodeError"
    assert span.status.status_code is StatusCode.ERROR


def test_an_attempt_that_is_interrupted_has_failed(app: Celery, spans: InMemorySpanExporter) -> None:
    """As by a hard time limit: the process is told to stop while the handler runs."""

    @app.task(name="interrupted")
    def interrupted() -> None:
        raise SystemExit(1)

    with pytest.raises(SystemExit):
        interrupted.apply()

    [span] = [each for each in spans.get_finished_spans() if each.name == "process interrupted"]
    attributes = span.attributes or {}
    assert span.status.status_code is StatusCode.ERROR
    assert (attributes["jobbridge.job.state"], attributes["error.type"]) == ("interrupted", "SystemExit")


def test_the_row_is_found_by_its_key(app: Celery, spans: InMemorySpanExporter) -> None:
    """Who looks at a job finds its trace."""
    row = failed(app)
    found = app.jobs.get(JobKey(tenant=row.tenant, job_id=row.job_id))

    assert found is not None
    assert found.metadata["traceparent"].split("-")[1] == f"{place(sent_by(spans, row.job_id))[0]:032x}"


def test_errors_are_in_spans_without_their_secrets(app: Celery, spans: InMemorySpanExporter) -> None:
    @app.task(name="shop.connects")
    def connects() -> None:
        with app.observer.step("connect", None):
            raise ConnectionError("postgres://u:hun7er@db refused; authorization=Bearer hun7er")

    app.conf.task_store_eager_result = False
    with pytest.raises(ConnectionError):
        connects()
    with pytest.raises(ConnectionError), app.observer.sending("shop.connects", {}, queue="q", former=None):
        connects()

    [step, again, sent] = spans.get_finished_spans()
    for span in (step, again, sent):
        told = str([dict(event.attributes or {}) for event in span.events]) + str(span.status.description)
        assert "hun7er" not in told
        assert "refused" in told
        assert span.status.status_code is StatusCode.ERROR
