"""The daily handlers of the system: one child for each tenant that has something to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jobbridge.bootstrap import make_app
from jobbridge.handlers.dataset import TODAY
from jobbridge.settings import load_settings
from tests.books import Books


@pytest.fixture
def app(database_url: str) -> Iterator[Any]:
    app = make_app(load_settings({"DATABASE_URL": database_url}))
    app.loader.import_default_modules()
    app.finalize()
    yield app
    app.close()


@pytest.mark.parametrize("name", ["expired-credits", "credit-reconciliation", "reconcile-bucket-usage"])
def test_a_daily_job_of_nobody_goes_over_all_tenants(app: Any, database_url: str, name: str) -> None:
    Books(database_url, "t1", "t2")

    result = app.tasks[name].apply(args=[{"asOf": TODAY.isoformat()}])

    assert result.get()["completed"] == 2


def test_a_daily_job_of_a_tenant_is_that_tenants_own(app: Any, database_url: str) -> None:
    Books(database_url, "t1", "t2")
    headers = {"jobbridge": {"tenant": "t1"}}

    result = app.tasks["credit-reconciliation"].apply(args=[{"asOf": TODAY.isoformat()}], headers=headers)

    assert "outcome" not in result.get()
