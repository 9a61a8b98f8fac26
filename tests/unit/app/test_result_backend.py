"""`jobbridge://` as a result backend: found by its entry point, as Celery finds any other."""

from __future__ import annotations

import celery
import pytest
from celery.app.backends import by_url

from jobbridge import Celery
from jobbridge.app.backend import JobBackend
from jobbridge.errors import ConfigurationError
from jobbridge.settings import load_settings

DATABASE_URL = "postgresql://shop:secret@db.example/shop"


def make_app(**options: str) -> Celery:
    settings = load_settings({"DATABASE_URL": DATABASE_URL})
    return Celery("shop", settings=settings, set_as_current=False, **options)


def test_celery_finds_it_without_any_app_of_ours() -> None:
    plain = celery.Celery("plain", set_as_current=False)
    backend, _ = by_url("jobbridge://", plain.loader)
    assert backend is JobBackend


@pytest.mark.parametrize(
    "url",
    [
        "jobbridge://",
        "jobbridge://db.example/shop",
        "jobbridge+postgresql://reader@db.example:5432/shop",
        "jobbridge+postgresql+psycopg://reader@db.example:5432/shop?sslmode=require",
    ],
)
def test_a_url_may_name_the_database_of_the_jobs(url: str) -> None:
    assert type(make_app(backend=url).backend) is JobBackend


def test_celerys_command_line_chooses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "jobbridge://")  # what `celery --result-backend` does
    assert type(make_app(backend="cache+memory://").backend) is JobBackend


def test_a_url_that_names_another_database_is_refused() -> None:
    app = make_app(backend="jobbridge+postgresql://shop:secret@db.example/results")
    with pytest.raises(ConfigurationError, match="names another database") as caught:
        _ = app.backend
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_an_app_of_plain_celery_is_told_what_it_needs() -> None:
    app = celery.Celery("plain", backend="jobbridge://", set_as_current=False)
    with pytest.raises(ConfigurationError, match="'plain' is a plain Celery app") as caught:
        _ = app.backend
    assert "from jobbridge import Celery" in caught.value.hint
