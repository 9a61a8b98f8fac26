"""`JOBBRIDGE = {"SCHEMA": …}`: Django's connection, its transactions and its models find what is ours there."""

from __future__ import annotations

import psycopg
import pytest

from tests.integration.django.project import Project

_SENDS = """
from django.db import connection, transaction
from jobbridge import get_job_runner
from jobbridge.django.models import Job, Schedule
from shop.tasks import add
from mysite.celery import app

with transaction.atomic():
    kept = [add.delay(1, 1), add.apply_async((2, 2), countdown=60)]
    kept_id = get_job_runner().schedule_job("shop.tasks.add", {"args": [4, 4]}).job_id
    with connection.cursor() as cursor:
        cursor.execute("SELECT theirs FROM public.job_events")
        assert cursor.fetchall() == [("kept",)], "what he says himself is his"
try:
    with transaction.atomic():
        lost = add.delay(1, 1)
        raise LookupError
except LookupError:
    pass
app.schedules.create("shop.tasks.add", "1 hour", {"args": [1, 1]}, name="hourly")
assert set(Job.objects.values_list("task_id", flat=True)) == {*(each.id for each in kept), str(kept_id)}
assert Job.objects.filter(status="scheduled").count() == 1
assert [each.name for each in Schedule.objects.all()] == ["hourly"]
print("driver", connection.Database.__name__)
"""


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_what_django_sends_and_reads_is_in_the_schema(
    project: Project, driver: str, empty_database_url: str
) -> None:
    if driver == "psycopg2":
        text = project.settings.read_text()
        project.settings.write_text(f"from jobbridge.django import keep_psycopg2\nkeep_psycopg2()\n{text}")
    project.add("mysite/settings.py", "JOBBRIDGE = {'SCHEMA': 'background_jobs'}\n")
    with psycopg.connect(empty_database_url, autocommit=True) as stranger:
        stranger.execute(
            "CREATE TABLE public.job_events (theirs text); INSERT INTO public.job_events VALUES ('kept')"
        )

        project.manage("migrate", "-v", "0")

        assert f"driver {driver}" in project.shell(_SENDS)
        ours = "SELECT count(*) FROM pg_tables WHERE schemaname = %s AND tablename IN ('jobs', 'job_details')"
        assert stranger.execute(ours, ["background_jobs"]).fetchall() == [(2,)]
        assert stranger.execute(ours, ["public"]).fetchall() == [(0,)]
