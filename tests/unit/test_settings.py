from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobbridge.core.keys import Engine
from jobbridge.errors import ConfigurationError
from jobbridge.settings import load_settings


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_defaults_are_those_of_the_original_and_say_so() -> None:
    settings = load_settings({})

    assert settings.engine is Engine.CELERY
    assert settings.fallback_to_celery is True
    assert settings.temporal_job_task_queue == "alga-jobs"
    assert settings.init_failure_backoff.total_seconds() == 60
    assert set(settings.sources.values()) == {"default"}


def test_the_edition_chooses_the_engine_unless_the_runner_type_does() -> None:
    assert load_settings({"EDITION": "enterprise"}).engine is Engine.TEMPORAL
    assert load_settings({"EDITION": "enterprise", "JOB_RUNNER_TYPE": "celery"}).engine is Engine.CELERY


def test_pgboss_is_an_alias_of_celery_and_so_is_its_fallback_switch() -> None:
    settings = load_settings({"JOB_RUNNER_TYPE": "pgboss", "JOB_RUNNER_FALLBACK_TO_PGBOSS": "false"})

    assert settings.engine is Engine.CELERY
    assert settings.fallback_to_celery is False


def test_the_environment_wins_over_a_dotenv_file_and_that_over_the_dev_servers(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("EDITION=enterprise\nTEMPORAL_ADDRESS=from-dotenv:7233\n")
    (tmp_path / ".jobbridge").mkdir()
    (tmp_path / ".jobbridge" / "dev.json").write_text(
        json.dumps({"TEMPORAL_ADDRESS": "from-dev:7233", "DATABASE_URL": "postgresql://dev/db"})
    )

    settings = load_settings({"EDITION": "community"})

    assert (settings.edition, settings.sources["edition"]) == ("community", "environment EDITION")
    assert (settings.temporal_address, settings.sources["temporal_address"]) == (
        "from-dotenv:7233",
        ".env TEMPORAL_ADDRESS",
    )
    assert (settings.database_url, settings.sources["database_url"]) == (
        "postgresql://dev/db",
        ".jobbridge/dev.json DATABASE_URL",
    )


def test_an_argument_wins_over_all() -> None:
    settings = load_settings({"EDITION": "community"}, edition="enterprise")

    assert (settings.edition, settings.sources["edition"]) == ("enterprise", "argument")


def test_what_did_not_win_is_kept_if_it_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("EDITION=enterprise\nJOB_RUNNER_TYPE=celery\n")

    settings = load_settings({"EDITION": "community", "JOB_RUNNER_TYPE": "celery"})

    assert settings.overruled == {"edition": {".env EDITION": "enterprise"}}


@pytest.mark.parametrize(
    ("name", "value"),
    [("JOB_RUNNER_TYPE", "redis"), ("EDITION", "deluxe"), ("JOB_RUNNER_INIT_FAILURE_BACKOFF_MS", "soon")],
)
def test_a_wrong_value_is_named_with_its_source(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name) as caught:
        load_settings({name: value})

    assert repr(value) in str(caught.value)
    assert caught.value.hint


def test_the_schema_travels_in_the_database_url() -> None:
    for url, carried in (
        ("postgresql://h/d", "postgresql://h/d?schema=mine"),
        ("postgresql://h/d?sslmode=require", "postgresql://h/d?sslmode=require&schema=mine"),
        ("host=h dbname=d", "host=h dbname=d schema=mine"),
    ):
        read = load_settings({"DATABASE_URL": url, "JOBBRIDGE_SCHEMA": "mine"})
        assert (read.database_schema, read.database_url) == ("mine", carried)
    assert load_settings({"DATABASE_URL": "postgresql://h/d"}).database_url == "postgresql://h/d"
