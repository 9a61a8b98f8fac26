"""What Django's settings say of us: `JOBBRIDGE = {…}`, and the database that would be meant. Imports no Django itself.

A test run of Django's has a database of its own, which it writes into the settings as it makes it (Django 5.2,
db/backends/base/creation.py; a process of `test --parallel` does the same). So they are read anew each time.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from jobbridge.errors import ConfigurationError

#: The name of the setting.
SETTING = "JOBBRIDGE"
#: Of our own in it, beside what the environment may say: which of DATABASES, and where the app is.
DATABASE, APP = "DATABASE", "APP"
#: Options of Django's database that libpq does not know: for Django, or for its driver.
_OF_DJANGO = frozenset(
    [
        *("assume_role", "autocommit", "connection_factory", "context", "cursor_factory", "isolation_level"),
        *("pool", "prepare_threshold", "row_factory", "server_side_binding"),
    ]
)
_POSTGRES = ("postg", "psql")  # also of other packages: django_tenants.postgresql_backend, psqlextra.backend

#: Alias → host, port and name as they are in the settings, before a test run put its own in their place.
_configured: dict[str, tuple[str, str, str]] = {}


def settings_of_django() -> Any:
    """Give Django's settings; None: this process has none."""
    module = sys.modules.get("django.conf")
    return module.settings if module is not None and module.settings.configured else None


def load(module: str | None) -> None:
    """Have Django read its settings if it is there and has not done so; not while that module is being read.

    Args:
        module: What DJANGO_SETTINGS_MODULE says.
    """
    conf = sys.modules.get("django.conf")
    if conf is not None and module and not conf.settings.configured and module not in sys.modules:
        _ = conf.settings.DATABASES  # Django reads them all at the first question


def given(known: Mapping[str, str]) -> dict[str, str]:
    """Give what `JOBBRIDGE` says, by the names of the environment.

    Args:
        known: What it may be called there → its name in the environment.

    Raises:
        ConfigurationError: A name is none of these; suggests the nearest.
    """
    found = {}
    for name, value in _dictionary().items():
        if name in (DATABASE, APP) or value is None:
            continue
        if name not in known:
            nearest = get_close_matches(str(name).upper(), known, n=1)
            suggestion = f"Did you mean {nearest[0]!r}? " if nearest else ""
            raise ConfigurationError(
                f"{SETTING} in Django's settings has {name!r}, which is no setting.",
                hint=f"{suggestion}`jobbridge doctor` and docs/configuration.md have them all.",
            )
        found[known[name]] = str(value).lower() if isinstance(value, bool) else str(value)
    return found


def alias() -> str:
    """Give the name of the database in DATABASES that is ours, too."""
    return str(_dictionary().get(DATABASE, "default"))


def app_module() -> str | None:
    """Give where the project says that its Celery app is."""
    told = _dictionary().get(APP)
    return None if told is None else str(told)


def database_url() -> str | None:
    """Give the URL of that database as it is now; None: there is none, or it is not in Postgres.

    Raises:
        ConfigurationError: `JOBBRIDGE["DATABASE"]` names one that is not in DATABASES.
    """
    settings = settings_of_django()
    databases = getattr(settings, "DATABASES", None) or {}
    if alias() not in databases:
        if DATABASE in _dictionary():
            raise ConfigurationError(
                f"{SETTING}[{DATABASE!r}] is {alias()!r}, and DATABASES has {', '.join(databases) or 'none'}.",
                hint="Name one of DATABASES.",
            )
        return None
    return url_of(databases[alias()])


def url_of(database: Mapping[str, Any]) -> str | None:
    """Write one of DATABASES as a URL; None: it is not in Postgres, or names no database."""
    if not any(word in str(database.get("ENGINE", "")) for word in _POSTGRES):
        return None
    options = {
        name: value
        for name, value in (database.get("OPTIONS") or {}).items()
        if name not in _OF_DJANGO and isinstance(value, str | int | float)
    }
    name = database.get("NAME") or options.pop("dbname", "")
    if not name and "service" not in options:
        return None
    user, password = (quote(str(database.get(each) or ""), safe="") for each in ("USER", "PASSWORD"))
    entry = f"{user}:{password}@" if password else f"{user}@" if user else ""
    host, port = str(database.get("HOST") or ""), str(database.get("PORT") or "")
    query = {"host": host, "port": port} if "/" in host or "," in host else {}
    place = "" if query else f"{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"
    query |= {key: str(value) for key, value in options.items()}
    told = urlencode({key: value for key, value in query.items() if value}, quote_via=quote)
    return f"postgresql://{entry}{place}/{quote(str(name), safe='')}{f'?{told}' if told else ''}"


def remember() -> None:
    """Note which databases the settings name, before a test run makes others."""
    databases = getattr(settings_of_django(), "DATABASES", None) or {}
    for name, database in databases.items():
        _configured.setdefault(str(name), _place(database))


def is_moved() -> bool:
    """Whether a test run has put its database in the place of the one that was configured."""
    former = _configured.get(alias())
    databases = getattr(settings_of_django(), "DATABASES", None) or {}
    return former is not None and alias() in databases and _place(databases[alias()]) != former


def is_configured(url: str) -> bool:
    """Whether a URL names the database that was configured, whatever the tests use now."""
    _, port, name = _configured.get(alias(), ("", "", ""))
    try:
        parts = urlsplit(url)
        return bool(name) and parts.path.lstrip("/") == name and str(parts.port or "5432") == (port or "5432")
    except ValueError:
        return False


def _dictionary() -> Mapping[str, Any]:
    found = getattr(settings_of_django(), SETTING, None) or {}
    if not isinstance(found, Mapping):
        raise ConfigurationError(
            f"{SETTING} in Django's settings is a {type(found).__name__}.",
            hint=f'Make it a dictionary: {SETTING} = {{"JOB_RUNNER_TYPE": "temporal"}}.',
        )
    return found


def _place(database: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(database.get("HOST") or ""), str(database.get("PORT") or ""), str(database.get("NAME") or "")
