"""The API against its own description, by a client that makes up requests (schemathesis).

As an administrator of all and as an operator who is bound to a tenant, with values that fit and with such as do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from starlette.testclient import TestClient

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.core.keys import TenantId
from jobbridge.dashboard.api.routes import RULES
from jobbridge.dashboard.api.rules import ApiRule
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dev.postgres import PostgresServer
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from tests.parity.tasks import make_app

#: They share a database that takes a while to fill.
pytestmark = pytest.mark.xdist_group("api-schema")

#: Of each kind, for each route and token.
EXAMPLES = 10
MADE_UP = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


#: What fits the schema may still be refused: the time may hold too many fires; an event is for a job or for a key.
PICKY = {"api_schedule_backfill", "api_send_event", "api_set_rule"}


@pytest.fixture(scope="module")
def app(postgres: PostgresServer, migrated_template: str) -> Iterator[Celery]:
    url = postgres.create_database(f"test_schema_{uuid4().hex}", template=migrated_template)
    app = make_app(settings=load_settings({"DATABASE_URL": url, "TEMPORAL_ADDRESS": "127.0.0.1:1"}))
    app.finalize()
    yield app
    app.close()


@pytest.fixture(scope="module")
def api(app: Celery) -> Any:
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", make_dashboard(app))


@pytest.fixture(scope="module")
def tokens(app: Celery) -> list[str]:
    access = AccessStore(app.database)
    return [
        access.create("all", Role.ADMIN)[0],
        access.create("one", Role.OPERATOR, tenant=TenantId("acme"))[0],
    ]


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if isinstance(rule, ApiRule)], ids=lambda rule: rule.name
)
def test_the_api_does_what_it_says(rule: ApiRule, api: Any, tokens: list[str]) -> None:
    excluded = [positive_data_acceptance] if rule.name in PICKY else []
    operation = api[rule.path][rule.methods[0]]
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @MADE_UP
        @given(case=operation.as_strategy(mode))
        def check(case: Case) -> None:
            for token in tokens:
                case.call_and_validate(headers={"Authorization": f"Bearer {token}"}, excluded_checks=excluded)

        check()


def test_a_customers_link_does_what_the_description_says(app: Celery, api: Any, tokens: list[str]) -> None:
    job = app.enqueue("parity.total", [[1]])
    client = TestClient(make_dashboard(app), headers={"Authorization": f"Bearer {tokens[0]}"})
    made = client.post(f"/api/v1/jobs/{job.job_id}/public-link").json()["url"]
    operation = api["/public/jobs/{link}"]["GET"]

    for link, status in ((made.rpartition("/")[2], 200), ("made-up", 404)):
        answer = operation.Case(path_parameters={"link": link}).call()
        operation.validate_response(answer)
        assert answer.status_code == status
