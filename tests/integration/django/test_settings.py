"""Where the settings come from in a Django project, and which source wins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.django.project import Project


def told(project: Project, *names: str) -> dict[str, tuple[Any, str]]:
    done = project.manage("jobbridge", "doctor", "--json", succeeds=False)
    settings = {each["name"]: (each["value"], each["source"]) for each in json.loads(done.stdout)["settings"]}
    return {name: settings[name] for name in names}


def test_each_source_is_told_and_the_environment_wins(project: Project, empty_database_url: str) -> None:
    assert told(project, "database_url")["database_url"][1] == 'Django\'s DATABASES["default"]'
    project.add(
        "mysite/settings.py",
        'JOBBRIDGE = {"JOB_RUNNER_TYPE": "temporal", "TEMPORAL_LIGHT": True, "JOIN_TRANSACTIONS": False}\n',
    )
    assert told(project, "job_runner_type", "temporal_light", "join_transactions") == {
        "job_runner_type": ("temporal", "Django's JOBBRIDGE JOB_RUNNER_TYPE"),
        "temporal_light": ("True", "Django's JOBBRIDGE TEMPORAL_LIGHT"),
        "join_transactions": ("False", "Django's JOBBRIDGE JOBBRIDGE_JOIN_TRANSACTIONS"),
    }
    project.environment = {"JOB_RUNNER_TYPE": "celery", "DATABASE_URL": empty_database_url}
    settings = told(project, "job_runner_type", "database_url")
    assert settings["job_runner_type"] == ("celery", "environment JOB_RUNNER_TYPE")
    assert settings["database_url"][1] == "environment DATABASE_URL"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('JOBBRIDGE = {"JOB_RUNER_TYPE": "temporal"}', "Did you mean 'JOB_RUNNER_TYPE'?"),
        ('JOBBRIDGE = {"JOB_RUNNER_TYPE": "redis"}', "Django's JOBBRIDGE JOB_RUNNER_TYPE"),
        ('JOBBRIDGE = {"DATABASE": "others"}', "DATABASES has default"),
        ('JOBBRIDGE = "temporal"', "Make it a dictionary"),
    ],
)
def test_a_mistake_is_told_with_its_place(project: Project, line: str, said: str) -> None:
    project.add("mysite/settings.py", f"{line}\n")
    done = project.manage("jobbridge", "doctor", succeeds=False)
    assert done.returncode != 0
    assert said in done.stderr


def test_a_database_that_is_not_in_postgres_is_not_taken(project: Project) -> None:
    project.add(
        "mysite/settings.py",
        'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db"}}\n',
    )
    assert told(project, "database_url")["database_url"] == (None, "default")
    project.manage("migrate", "-v", "0")  # nothing of ours is there to migrate


def test_another_database_of_django_can_be_ours(project: Project, empty_database_url: str) -> None:
    project.add(
        "mysite/settings.py",
        'DATABASES["jobs"] = DATABASES["default"]\n'
        'DATABASES["default"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db"}\n'
        'JOBBRIDGE = {"DATABASE": "jobs"}\n',
    )
    assert told(project, "database_url")["database_url"][1] == 'Django\'s DATABASES["jobs"]'
    project.manage("migrate", "-v", "0")
    assert "NotMigrated" in project.manage(
        "shell", "-v", "0", "-c", "from shop.tasks import add; add.delay(1, 1)", succeeds=False
    ).stderr  # fmt: skip
    assert "Migrating JobBridge's tables" in project.manage("migrate", "--database", "jobs").stdout
    assert project.shell(
        "from django.db import transaction\n"
        "from jobbridge.django.models import Job\n"
        "from shop.tasks import add\n"
        "with transaction.atomic('jobs'):\n"
        "    add.delay(1, 1)\n"
        "    transaction.set_rollback(True, 'jobs')\n"
        "with transaction.atomic():\n"
        "    add.delay(2, 2)\n"
        "    transaction.set_rollback(True)\n"
        "print(Job.objects.using('jobs').count())"
    ).strip() == "1"  # fmt: skip


def test_our_command_is_djangos(project: Project, tmp_path: Path) -> None:
    project.manage("migrate", "-v", "0")
    assert "manage.py jobbridge" in project.manage("jobbridge", "--help").stdout
    handlers = project.manage(
        "jobbridge", "enqueue", "shop.tasks.add", "--data", '{"args": [1, 2]}', "--json"
    )
    assert json.loads(handlers.stdout)
    assert "shop.tasks.add" in project.shell(
        "from django.core.management import call_command; call_command('jobbridge', 'jobs', 'list')"
    )
    failed = project.manage("jobbridge", "jobs", "show", "no-such-job", succeeds=False)
    assert failed.returncode == 5
