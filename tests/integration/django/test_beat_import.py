"""`jobbridge schedules import --from django-celery-beat`: each schedule is ours as it was there, once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.django.project import Project

_SETTINGS = 'INSTALLED_APPS += ["django_celery_beat"]\nCELERY_TIMEZONE = "Europe/Berlin"\n'

_MAKES = """
from datetime import timedelta

from django.utils import timezone
from django_celery_beat.models import ClockedSchedule, CrontabSchedule, IntervalSchedule, PeriodicTask, SolarSchedule

now = timezone.now()
hourly = IntervalSchedule.objects.create(every=1, period="hours")
daily = IntervalSchedule.objects.create(every=1, period="days")
fast = IntervalSchedule.objects.create(every=5, period="microseconds")
nightly = CrontabSchedule.objects.create(minute="30", hour="2", day_of_week="1-5", timezone="America/New_York")
sunday = CrontabSchedule.objects.create(minute="0", hour="*/6", day_of_week="sun", day_of_month="*/2")
later = ClockedSchedule.objects.create(clocked_time=now + timedelta(days=30))
sun = SolarSchedule.objects.create(event="sunset", latitude="52.5", longitude="13.4")


def make(name, **told):
    told.setdefault("task", "shop.tasks.add")
    return PeriodicTask.objects.create(name=name, **told)


make("interval", interval=hourly, args="[1, 2]", priority=3, queue="slow", expire_seconds=60)
PeriodicTask.objects.filter(name="interval").update(last_run_at="2026-01-01T10:17:05.5Z")
make("crontab", crontab=nightly, kwargs='{"x": 1, "y": 2}', headers='{"who": "ada"}')
make("sunday", crontab=sunday)
make("clocked", clocked=later, one_off=True, args='["a", "b"]')
make("one-off", interval=daily, one_off=True)
make("disabled", interval=daily, enabled=False)
make("expired", interval=daily, expires=now - timedelta(days=1))
make("expires", interval=daily, expires=now + timedelta(days=90))
make("important", interval=daily, priority=200)
make("solar", solar=sun)
make("too fast", interval=fast)
make("unknown", interval=daily, task="shop.tasks.gone")
make("begins later", interval=daily, start_time=now + timedelta(days=7))
make("amqp", interval=daily, exchange="logs", routing_key="x")
make("celery.backend_cleanup", interval=daily, task="celery.backend_cleanup")
"""


@pytest.fixture
def project(project_on_5: Project) -> Project:
    return project_on_5


def import_from(project: Project, *options: str) -> dict[str, dict[str, Any]]:
    done = project.manage(
        "jobbridge", "schedules", "import", "--from", "django-celery-beat", "--json", *options, succeeds=False
    )
    assert done.returncode == 1, done.stderr  # some are refused
    assert done.stdout, done.stderr
    return {each["name"]: each for each in json.loads(done.stdout)}


def test_schedules_come_as_they_were_and_once(project: Project) -> None:
    project.add("mysite/settings.py", _SETTINGS)
    project.manage("migrate", "-v", "0")
    project.shell(_MAKES)

    tried = import_from(project, "--dry-run")
    assert tried["interval"]["outcome"] == "created"
    assert json.loads(project.manage("jobbridge", "schedules", "list", "--json").stdout) == []

    found = import_from(project)
    outcomes = {name: each["outcome"] for name, each in found.items()}
    created = [
        "interval",
        "crontab",
        "sunday",
        "clocked",
        "one-off",
        "disabled",
        "expired",
        "expires",
        "important",
    ]
    refused = ["solar", "too fast", "unknown", "begins later", "amqp"]
    assert outcomes == {
        **dict.fromkeys(created, "created"), **dict.fromkeys(refused, "refused"), "celery.backend_cleanup": "left out"
    }  # fmt: skip
    assert "solar" in found["solar"]["note"]
    assert "shop.tasks.gone" in found["unknown"]["note"]
    assert "priority 200 is 9" in found["important"]["note"]

    rows = {
        each["name"]: each
        for each in json.loads(project.manage("jobbridge", "schedules", "list", "--json").stdout)
    }
    assert set(rows) == set(created)
    interval = rows["interval"]
    assert (interval["args"], interval["queue"], interval["priority"]) == ([1, 2], "slow", 3)
    assert interval["options"] == {"expires": 60}
    assert interval["overlap"] == "allow"
    assert interval["next_fire_at"][14:19] == "17:05"  # on from its last run
    crontab = rows["crontab"]
    assert (crontab["zone"], crontab["kwargs"]) == ("America/New_York", {"x": 1, "y": 2})
    assert crontab["options"] == {"headers": {"who": "ada"}}
    assert crontab["spec"].split()[:2] == ["30", "2"]
    assert rows["sunday"]["zone"] == "Europe/Berlin"
    assert (rows["clocked"]["kind"], rows["clocked"]["args"]) == ("once", ["a", "b"])
    assert rows["one-off"]["kind"] == "once"
    assert {name for name, row in rows.items() if row["paused"]} == {"disabled", "expired"}
    assert rows["expires"]["options"]["expires"]

    again = import_from(project)
    assert {name: each["outcome"] for name, each in again.items() if name in created} == dict.fromkeys(
        created, "unchanged"
    )
    project.shell(
        "from django_celery_beat.models import PeriodicTask\n"
        "PeriodicTask.objects.filter(name='interval').update(args='[3, 4]', last_run_at='2026-01-01T11:17:06Z')"
    )
    project.manage("jobbridge", "schedules", "resume", "disabled")
    assert import_from(project)["interval"]["outcome"] == "updated"
    rows = {
        each["name"]: each
        for each in json.loads(project.manage("jobbridge", "schedules", "list", "--json").stdout)
    }
    assert rows["interval"]["args"] == [3, 4]
    assert rows["interval"]["next_fire_at"][14:19] == "17:05"
    assert not rows["disabled"]["paused"]  # whoever resumed it here meant it

    # A fire of each kind of options makes a job.
    for name in ("interval", "crontab", "expires"):
        project.manage("jobbridge", "schedules", "run", name)
    assert project.manage("jobbridge", "jobs", "list").stdout.count("queued") == 3


def test_where_there_are_no_such_tables_it_says_so(project: Project) -> None:
    project.manage("migrate", "-v", "0")
    done = project.manage("jobbridge", "schedules", "import", "--from", "django-celery-beat", succeeds=False)
    assert done.returncode == 3
    assert "has no tables of django-celery-beat" in done.stderr
