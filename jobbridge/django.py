"""For applications that use Django."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from jobbridge.errors import ConfigurationError

_DJANGOS_CHOICE = "django.db.backends.postgresql.psycopg_any"


def keep_psycopg2() -> None:
    """Have Django use psycopg2, although psycopg 3 is there, which JobBridge needs; for the top of `settings.py`.

    Django takes psycopg 3 wherever it can be imported, and has no setting for it (5.2, db/backends/postgresql). So
    its backend is imported here while psycopg 3 cannot be; afterwards everybody else can.

    Raises:
        ConfigurationError: Django has taken psycopg 3 before, or psycopg2 is not installed.
    """
    if _DJANGOS_CHOICE not in sys.modules:
        _choose()
    if sys.modules[_DJANGOS_CHOICE].is_psycopg3:
        raise ConfigurationError(
            "Django uses psycopg 3 already.",
            hint="Call keep_psycopg2() at the top of settings.py, before anything imports Django's database backend.",
        )


def default_connection() -> Any:
    """Give Django's default connection, of this thread.

    Raises:
        ConfigurationError: There is no Django with settings in this process.
    """
    conf, db = sys.modules.get("django.conf"), None
    if conf is not None and conf.settings.configured:
        db = import_module("django.db")
    if db is None:
        raise ConfigurationError(
            "No connection is named, and Django, whose default connection would be meant, is not set up here.",
            hint="Pass the connection or session whose transaction it is.",
        )
    return db.connection


def _choose() -> None:
    there = sys.modules.get("psycopg")
    sys.modules["psycopg"] = None  # type: ignore[assignment]  # Python's way to say that it cannot be imported
    try:
        import_module("django.db.backends.postgresql.base")
    except Exception as error:  # Django's ImproperlyConfigured, which this module cannot name without Django
        raise ConfigurationError(
            f"Django cannot use psycopg2: {error}.", hint="Run `pip install psycopg2-binary`."
        ) from error
    finally:
        del sys.modules["psycopg"]
        if there is not None:
            sys.modules["psycopg"] = there
