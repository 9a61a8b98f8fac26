"""Django's DATABASES and our URLs, one from the other."""

from __future__ import annotations

from typing import Any

import pytest

import jobbridge.django
from jobbridge.django_settings import url_of
from jobbridge.errors import ConfigurationError
from jobbridge.postgres.target import Target

ENGINE = "django.db.backends.postgresql"


@pytest.mark.parametrize(
    ("database", "parameters"),
    [
        (
            {"NAME": "shop", "USER": "ada", "PASSWORD": "p@ss:w/rd%", "HOST": "db.example", "PORT": 5433},
            {"dbname": "shop", "user": "ada", "password": "p@ss:w/rd%", "host": "db.example", "port": "5433"},
        ),
        (
            {"NAME": "a shop/ß", "HOST": "/run/postgresql", "USER": "ada"},
            {"dbname": "a shop/ß", "host": "/run/postgresql", "user": "ada"},
        ),
        ({"NAME": "shop"}, {"dbname": "shop"}),
        ({"NAME": "shop", "HOST": "::1", "PORT": "5432"}, {"dbname": "shop", "host": "::1", "port": "5432"}),
        (
            {"NAME": "shop", "HOST": "one,two", "PORT": "5432,5433", "OPTIONS": {"target_session_attrs": "primary"}},
            {"dbname": "shop", "host": "one,two", "port": "5432,5433", "target_session_attrs": "primary"},
        ),
        (
            {
                "NAME": "shop", "HOST": "db", "ENGINE": "django.contrib.gis.db.backends.postgis",
                "OPTIONS": {
                    "sslmode": "verify-full", "sslrootcert": "/etc/ca.pem", "pool": {"min_size": 2},
                    "isolation_level": 2, "server_side_binding": True, "assume_role": "app", "connect_timeout": 3,
                },
            },
            {
                "dbname": "shop", "host": "db", "sslmode": "verify-full", "sslrootcert": "/etc/ca.pem",
                "connect_timeout": "3",
            },
        ),
        ({"NAME": "", "OPTIONS": {"service": "shop"}}, {"service": "shop"}),
    ],
)  # fmt: skip
def test_a_database_of_django_as_ours(database: dict[str, Any], parameters: dict[str, str]) -> None:
    url = url_of({"ENGINE": ENGINE, **database})
    assert url is not None
    assert Target.of(url).parameters == parameters


@pytest.mark.parametrize(
    "database",
    [{"ENGINE": "django.db.backends.sqlite3", "NAME": "/db"}, {"ENGINE": ENGINE, "NAME": ""}, {}],
)
def test_what_is_no_database_in_postgres_is_none_of_ours(database: dict[str, Any]) -> None:
    assert url_of(database) is None


def test_our_database_as_djangos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://ada:p%40ss@db.example:5433/shop?sslmode=require")
    told = jobbridge.django.database(CONN_MAX_AGE=60)
    assert told == {
        "ENGINE": ENGINE, "NAME": "shop", "USER": "ada", "PASSWORD": "p@ss", "HOST": "db.example", "PORT": "5433",
        "OPTIONS": {"sslmode": "require"}, "CONN_MAX_AGE": 60,
    }  # fmt: skip
    url = url_of(told)
    assert url is not None
    assert Target.of(url).place == (("db.example", "5433"), "shop")
    monkeypatch.delenv("DATABASE_URL")
    monkeypatch.chdir("/")
    with pytest.raises(ConfigurationError, match="No database is configured"):
        jobbridge.django.database()
