"""Django projects on psycopg2 stay on it, although JobBridge brings psycopg 3."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import clean_environment

_SETTINGS = """
import os
from urllib.parse import unquote, urlsplit

{first}

url = urlsplit(os.environ["DATABASE_URL"])
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.postgres"]
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.postgresql",
        "HOST": url.hostname, "PORT": url.port, "USER": url.username, "PASSWORD": unquote(url.password),
        "NAME": url.path[1:],
    }}
}}
"""

_PROGRAM = """
import django

django.setup()

import psycopg
from django.db import connection

from jobbridge import Celery

app = Celery("shop")


@app.task(name="shop.add")
def add(x, y):
    return x + y


add.delay(1, 2)
with connection.cursor() as cursor:
    cursor.execute("SELECT type FROM jobs")
    print(connection.Database.__name__, cursor.fetchall())
"""

_KEEP = "from jobbridge.django import keep_psycopg2\nkeep_psycopg2()"


def run(folder: Path, database_url: str, first: str) -> subprocess.CompletedProcess[str]:
    (folder / "settings.py").write_text(_SETTINGS.format(first=first))
    settings = {"DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=folder, env=clean_environment(settings), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("first", "driver"),
    [
        ("", "psycopg"),
        (_KEEP, "psycopg2"),
        (f"import psycopg\n{_KEEP}", "psycopg2"),
        (f"{_KEEP}\n{_KEEP}", "psycopg2"),
    ],
    ids=["django chooses", "kept", "kept, psycopg 3 imported before", "kept twice"],
)
def test_the_project_says_which_driver_django_uses_and_jobs_are_sent_with_either(
    tmp_path: Path, database_url: str, first: str, driver: str
) -> None:
    done = run(tmp_path, database_url, first)
    assert done.stdout.split("\n")[0] == f"{driver} [('shop.add',)]", done.stderr


def test_it_says_so_when_it_comes_too_late(tmp_path: Path, database_url: str) -> None:
    done = run(tmp_path, database_url, f"import django.db.backends.postgresql.base\n{_KEEP}")
    assert "ConfigurationError: Django uses psycopg 3 already." in done.stderr
    assert "at the top of settings.py" in done.stderr


def test_it_says_so_when_psycopg2_is_not_there(tmp_path: Path, database_url: str) -> None:
    done = run(tmp_path, database_url, f"import sys; sys.modules['psycopg2'] = None\n{_KEEP}")
    assert "pip install psycopg2-binary" in done.stderr
