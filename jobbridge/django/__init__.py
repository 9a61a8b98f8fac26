"""For applications that use Django: `INSTALLED_APPS += ["jobbridge.django"]`; see docs/django.md.

What comes in: Django's settings, its connection where a transaction is open, its tasks. What goes out: the command
`manage.py jobbridge`, our tables with `manage.py migrate`, pages of the admin. Importing this module needs no Django.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from jobbridge.errors import ConfigurationError

_DJANGOS_CHOICE = "django.db.backends.postgresql.psycopg_any"


def database(**options: Any) -> dict[str, Any]:
    """Give what `DATABASES` takes, for the database that JobBridge is configured with: DATABASE_URL, `jobbridge dev`.

    For `settings.py`: `DATABASES = {"default": jobbridge.django.database()}`.

    Args:
        options: More of Django's, such as `CONN_MAX_AGE=60`.

    Raises:
        ConfigurationError: None is configured, or its URL cannot be read.
    """
    from jobbridge.postgres.target import Target
    from jobbridge.settings import load_settings

    url = load_settings().database_url
    if not url:
        raise ConfigurationError(
            "No database is configured.",
            hint="Set DATABASE_URL=postgresql://user:password@host/name, or start one with `jobbridge dev`.",
        )
    rest = dict(Target.of(url).parameters)
    named = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    told = {name: rest.pop(parameter, "") for name, parameter in named.items()}
    return {"ENGINE": "django.db.backends.postgresql", **told, "OPTIONS": rest, **options}


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
