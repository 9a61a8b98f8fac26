import os

import django
import pytest

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
os.environ.setdefault("DATABASE_URL", "postgresql://localhost/no-test-uses-it")
django.setup()

from django.core.management import call_command  # noqa: E402  # it needs the settings
from django.db import connections  # noqa: E402

from jobbridge.django import database  # noqa: E402


@pytest.fixture
def site(jobbridge, monkeypatch):
    """Have Django in the test's own database, where its jobs are."""
    monkeypatch.setenv("DATABASE_URL", jobbridge.app.settings.database_url)
    connections["default"].settings_dict.update(database())
    call_command("migrate", verbosity=0)
    yield
    connections.close_all()
