"""Pages of Django's admin: what they show, who may do what, and that a long table does not slow them down."""

from __future__ import annotations

from tests.integration.django.project import Project

_PROGRAM = """
import re

from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from jobbridge.django.models import Job, Schedule
from jobbridge.errors import UnsupportedOption
from mysite.celery import app
from shop.tasks import add

with connection.cursor() as cursor:
    cursor.execute(
        "INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, created_at)"
        " SELECT '00000000-0000-0000-0000-000000000000', id, id::text, 'shop.tasks.old',"
        " CASE WHEN n % 10 = 0 THEN 'failed' WHEN n % 10 = 1 THEN 'scheduled' ELSE 'completed' END, 'celery',"
        " now() - n * interval '1 second'"
        " FROM (SELECT n, gen_random_uuid() AS id FROM generate_series(1, 30000) AS n) AS made"
    )
    cursor.execute("ANALYZE jobs")


def client(name, *permissions):
    user = User.objects.create_user(name, password="x", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    made = Client()
    made.force_login(user)
    return made


def do(by, kind, action, *keys):
    return by.post(f"/admin/jobbridge/{kind}/", {"action": action, "_selected_action": keys}, follow=True)


reader, operator = client("ada", "view_job", "view_schedule"), client("bob", "change_job", "change_schedule")
nobody = client("eve")
sent = add.apply_async((1, 1), job_metadata={"password": "hunter2"}, countdown=3600)
schedule = app.schedules.create("shop.tasks.add", "1 hour", {"args": [1, 1]}, name="hourly")

assert nobody.get("/admin/jobbridge/job/").status_code == 403
with CaptureQueriesContext(connection) as asked:
    page = reader.get("/admin/jobbridge/job/")
assert page.status_code == 200 and "shop.tasks.add" in page.content.decode()
asked = [each["sql"] for each in asked if '"jobs"' in each["sql"]]
assert asked, "no question was captured"
for path in ("?outcome=failed", "?outcome=open", "?q=00000000-0000-0000-0000-000000000000", f"?q={sent.id}", "?p=20"):
    with CaptureQueriesContext(connection) as more:
        answer = reader.get(f"/admin/jobbridge/job/{path}")
    assert answer.status_code == 200, (path, answer.status_code)
    asked += [each["sql"] for each in more if '"jobs"' in each["sql"]]
for sql in asked:
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + sql.replace("%", "%%"))
        plan = "\\n".join(row[0] for row in cursor.fetchall())
    if "jobs_pkey" in plan:
        continue  # one job
    assert "Sort" not in plan and ("Seq Scan" not in plan or "Limit" in plan), f"{sql}\\n{plan}"

shown = reader.get(f"/admin/jobbridge/job/{sent.id}/change/").content.decode()
assert "hunter2" not in shown and "password" in shown and 'name="_save"' not in shown
assert reader.get("/admin/jobbridge/job/add/").status_code == 403
assert reader.post(f"/admin/jobbridge/job/{sent.id}/delete/", {"post": "yes"}).status_code == 403

do(reader, "job", "cancel", sent.id)
assert Job.objects.get(job_id=sent.id).status == "scheduled", "who may only look has cancelled it"
assert "Cancelled: 1" in do(operator, "job", "cancel", sent.id).content.decode()
job = Job.objects.get(job_id=sent.id)
assert (job.status, job.cancelled_by) == ("cancelled", "bob")
assert "had ended" in do(operator, "job", "cancel", sent.id).content.decode()

waits = add.apply_async((1, 1), countdown=3600)
with connection.cursor() as cursor:
    cursor.execute("UPDATE jobs SET status = 'failed' WHERE job_id = %s", [waits.id])
assert "Sent again: 1" in do(operator, "job", "retry", waits.id).content.decode()
assert Job.objects.get(job_id=waits.id).status in ("queued", "scheduled")

key = str(schedule.schedule_id)
do(reader, "schedule", "pause", key)
assert not Schedule.objects.get(schedule_id=key).paused
do(operator, "schedule", "pause", key)
row = Schedule.objects.get(schedule_id=key)
assert row.paused and row.note == "by bob"
do(operator, "schedule", "run_now", key)
do(operator, "schedule", "resume", key)
row = Schedule.objects.get(schedule_id=key)
assert not row.paused and row.last_job_id is not None
assert reader.get(f"/admin/jobbridge/schedule/{key}/change/").status_code == 200
for write in (row.save, row.delete, job.save, job.delete):
    try:
        write()
    except UnsupportedOption:
        continue
    raise AssertionError(write)
print("all is well")
"""


def test_the_admins_pages(project: Project) -> None:
    project.add("mysite/settings.py", 'ALLOWED_HOSTS = ["testserver"]\n')
    project.manage("migrate", "-v", "0")
    project.add("program.py", _PROGRAM)
    assert "all is well" in project.shell("import program")
