"""The dashboard for Grafana asks only for what /metrics gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.dashboard.application import make_dashboard
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from tests.job_events import EventsOf
from tests.parity.tasks import make_app
from tests.support import REPOSITORY

pytestmark = pytest.mark.usefixtures("first_look_is_waited_for")

GRAFANA = json.loads((REPOSITORY / "docs" / "grafana" / "jobbridge.json").read_text())
EXPRESSIONS = [target["expr"] for panel in GRAFANA["panels"] for target in panel["targets"]]


@pytest.fixture
def labels(database_url: str, first_look_is_waited_for: None) -> Iterator[dict[str, set[str]]]:
    """Each sample that is given, with its labels; of a system in which something waits and something has ended."""
    app: Celery = make_app(
        settings=load_settings({"DATABASE_URL": database_url, "TEMPORAL_ADDRESS": "127.0.0.1:1"})
    )
    app.finalize()
    ended = EventsOf()
    for event in (ended.submitted(), ended.started(), ended.completed()):
        app.recorder.record(event)
    app.tasks["parity.total"].delay([1])
    token, _ = AccessStore(app.database).create("prometheus", Role.VIEWER)
    client = TestClient(make_dashboard(app), base_url="https://jobs.example")
    text = client.get("/metrics", headers={"authorization": f"Bearer {token}"}).text
    given: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            given.setdefault(sample.name, set()).update(sample.labels)
    yield given
    app.close()


def test_every_expression_names_metrics_and_labels_that_there_are(labels: dict[str, set[str]]) -> None:
    assert len(EXPRESSIONS) > 10
    for expression in EXPRESSIONS:
        names = set(re.findall(r"\bjobbridge_\w+", expression))
        assert names, expression
        assert names <= labels.keys(), expression
        known = set[str]().union(*(labels[name] for name in names))
        grouped = re.findall(r"\bby \(([^)]*)\)", expression)
        asked = {label.strip() for group in grouped for label in group.split(",")}
        asked |= set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expression))
        assert asked <= known, (expression, asked - known)


def test_panels_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in GRAFANA["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in GRAFANA["panels"]}) == len(GRAFANA["panels"])
