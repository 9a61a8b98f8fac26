"""Tables in partitions: what they had stays, jobs are kept where their ids say, and what is past goes as a whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql

from jobbridge import Celery
from jobbridge.core.keys import Engine, JobKey, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.errors import ConfigurationError, DatabaseError
from jobbridge.maintenance.pruner import Pruner
from jobbridge.settings import load_settings
from jobbridge.store.counts.counts import CountStore
from jobbridge.store.counts.estimates import fewest_jobs
from jobbridge.store.jobs.ends import mark_ends
from jobbridge.store.partitions import ahead, convert, expire
from jobbridge.store.partitions.layout import Partition, detached, layout_of, name_of
from jobbridge.store.partitions.spans import Width, end_of, lowest_id, start_of, time_ordered_id
from jobbridge.store.schema import migrate as migrations
from jobbridge.store.schema.online import create_indexes, drop_indexes
from jobbridge.store.schema.partition import partition
from tests.job_events import EventsOf
from tests.parity.tasks import make_app

NEVER_STOPPED = threading.Event()
RETENTION = {"JOB_RUNNER_RETENTION_COMPLETED_DAYS": "30", "JOB_RUNNER_RETENTION_FAILED_DAYS": "30"}
NOW = datetime.now(UTC)

#: What a table is made of, but for its partitions.
ANATOMY = """
SELECT 'column', format('%%s %%s %%s %%s', column_name, data_type, is_nullable, column_default)
FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %(table)s
UNION ALL
SELECT 'index', replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ')
FROM pg_index WHERE indrelid = %(table)s::regclass AND NOT indisprimary
UNION ALL
SELECT 'trigger', format('%%s %%s %%s %%s %%s %%s %%s', tgname, tgtype, tgfoid::regproc, tgattr, tgenabled,
    tgqual IS NULL, tgnewtable)
FROM pg_trigger WHERE tgrelid = %(table)s::regclass AND NOT tgisinternal
UNION ALL
SELECT 'check', conname || ' ' || pg_get_constraintdef(oid)
FROM pg_constraint WHERE conrelid = %(table)s::regclass AND contype = 'c'
UNION ALL
SELECT 'policy', format('%%s %%s %%s %%s', policyname, roles, qual, with_check)
FROM pg_policies WHERE tablename = %(table)s
UNION ALL
SELECT 'guard', format('%%s %%s %%s', relrowsecurity, relforcerowsecurity, relowner)
FROM pg_class WHERE oid = %(table)s::regclass
UNION ALL
SELECT 'grant', format('%%s %%s', grantee, privilege_type)
FROM pg_class CROSS JOIN aclexplode(relacl) WHERE oid = %(table)s::regclass
"""


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def divided(database_url: str, connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    partition(database_url, "month", since=timedelta(days=200))
    return connection


@pytest.fixture
def app(database_url: str, divided: psycopg.Connection[Any]) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url, **RETENTION}))
    yield app
    app.close()


def _id(at: datetime) -> UUID:
    return time_ordered_id(int(at.timestamp() * 1000), uuid4().int & (1 << 80) - 1)


def _add(
    connection: psycopg.Connection[Any],
    at: datetime,
    status: str = "completed",
    *,
    ended_at: datetime | None = None,
    job_id: UUID | None = None,
    tenant: str = "acme",
) -> UUID:
    """Make a job of that time, with a step; it ended a minute later, if it has ended."""
    is_open = status in ("queued", "processing", "scheduled")
    known = {
        "tenant": tenant,
        "job_id": job_id or _id(at),
        "status": status,
        "at": at,
        "ended_at": None if is_open else ended_at or at + timedelta(minutes=1),
    }
    connection.execute(
        """
        INSERT INTO jobs (tenant, job_id, task_id, type, status, runner_type, created_at, updated_at, completed_at,
            unsuccessful)
        VALUES (%(tenant)s, %(job_id)s, %(job_id)s, 'type', %(status)s, 'celery', %(at)s, %(at)s, %(ended_at)s,
            CASE WHEN %(status)s::text IN ('failed', 'cancelled') THEN %(status)s::text END)
        """,
        known,
    )
    connection.execute(
        "INSERT INTO job_details (tenant, job_id, step_name, status)"
        " VALUES (%(tenant)s, %(job_id)s, 'attempt', 'completed')",
        known,
    )
    return UUID(str(known["job_id"]))


def _where(connection: psycopg.Connection[Any], table: str = "jobs") -> dict[UUID, str]:
    statement = sql.SQL("SELECT job_id, tableoid::regclass::text FROM {}").format(sql.Identifier(table))
    return dict(connection.execute(statement).fetchall())


def _counted(app: Celery) -> int:
    return sum(CountStore(app.database).totals().values())


def _rows(connection: psycopg.Connection[Any], table: str = "jobs") -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return int(row[0])


def _month_of(connection: psycopg.Connection[Any], at: datetime) -> Partition:
    layout = layout_of(connection)
    assert layout is not None
    [month] = [each for each in layout.partitions if each.starts_at == start_of(Width.MONTH, at)]
    return month


def _an_old_month() -> datetime:
    """Give the middle of a month that ended more than thirty days ago."""
    return start_of(Width.MONTH, NOW - timedelta(days=95)) + timedelta(days=10)


# -- becoming so


def test_all_that_the_tables_had_is_there_again(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute(
        "DO $$ BEGIN CREATE ROLE parts_reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    connection.execute("GRANT SELECT ON jobs, job_details TO parts_reader")
    migrations.set_row_level_security(database_url, is_on=True)
    tables = ("jobs", "job_details")
    before = {table: sorted(connection.execute(ANATOMY, {"table": table}).fetchall()) for table in tables}
    kept = [_add(connection, NOW - timedelta(days=days)) for days in (0, 40, 80)]
    kept.append(_add(connection, NOW, job_id=uuid4()))
    steps = sorted(connection.execute("SELECT job_id, sequence FROM job_details").fetchall())

    names = partition(database_url, "month")

    for table in tables:
        after = sorted(connection.execute(ANATOMY, {"table": table}).fetchall())
        assert set(after) ^ set(before[table]) == set()
    assert set(_where(connection)) == set(kept)
    assert sorted(connection.execute("SELECT job_id, sequence FROM job_details").fetchall()) == steps
    assert names[0] == name_of(start_of(Width.MONTH, NOW - timedelta(days=80)))
    place = _where(connection)
    assert place[kept[0]] == f"jobs_{name_of(start_of(Width.MONTH, NOW))}"
    assert place[kept[3]] == "jobs_default"
    assert _where(connection, "job_details") == {job: f"job_details_{of[5:]}" for job, of in place.items()}
    # Steps go on being numbered where they were.
    _add(connection, NOW)
    [(newest,)] = connection.execute("SELECT max(sequence) FROM job_details").fetchall()
    assert newest == max(number for _, number in steps) + 1
    # By its own name, nobody but who serves all tenants sees a partition.
    parts = connection.execute(
        "SELECT count(*) FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent = 'jobs'::regclass AND NOT (relrowsecurity AND relforcerowsecurity)"
    ).fetchone()
    assert parts == (0,)


def test_partitions_vacuum_as_the_whole_table_did(divided: psycopg.Connection[Any]) -> None:
    options = {
        tuple(sorted(each or ()))
        for (each,) in divided.execute(
            "SELECT reloptions FROM pg_class WHERE relname ~ '^jobs_(p[0-9]+|default)$' AND relkind = 'r'"
        )
    }
    assert options == {
        ("autovacuum_vacuum_scale_factor=0.02", "autovacuum_vacuum_threshold=1000", "fillfactor=70")
    }


def test_row_level_security_comes_to_partitions_and_goes(
    database_url: str, divided: psycopg.Connection[Any]
) -> None:
    guarded = (
        "SELECT count(*) FILTER (WHERE relrowsecurity AND relforcerowsecurity), count(*)"
        " FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid"
        " WHERE inhparent IN ('jobs'::regclass, 'job_details'::regclass)"
    )
    migrations.set_row_level_security(database_url, is_on=True)
    on = divided.execute(guarded).fetchone()
    policies = divided.execute(
        "SELECT DISTINCT policyname FROM pg_policies WHERE tablename ~ '^jobs_(p[0-9]|default)'"
    ).fetchall()

    migrations.set_row_level_security(database_url, is_on=False)

    off = divided.execute(guarded).fetchone()
    assert on is not None
    assert off is not None
    assert on[0] == on[1] > 0
    assert policies == [("jobbridge_services",)], "who is of a tenant asks the whole"
    assert off == (0, on[1])


def test_it_can_be_asked_again_and_made_narrower(database_url: str, divided: psycopg.Connection[Any]) -> None:
    before = partition(database_url, "month")

    assert partition(database_url, "month") == before

    assert partition(database_url, "day") == before, "the months that there are reach further"
    layout = layout_of(divided)
    assert layout is not None
    assert layout.width is Width.DAY


def test_what_hangs_on_the_tables_is_named_and_nothing_is_changed(
    database_url: str, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("CREATE VIEW of_mine AS SELECT job_id FROM jobs")

    with pytest.raises(DatabaseError, match=r"the view .*of_mine"):
        partition(database_url, "month")

    assert layout_of(connection) is None
    assert _add(connection, NOW)


def test_many_jobs_are_copied_only_when_told(
    database_url: str, connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "FEW", 1)
    _add(connection, NOW)
    _add(connection, NOW)

    with pytest.raises(ConfigurationError, match="There are many jobs"):
        partition(database_url, "month")
    assert layout_of(connection) is None

    partition(database_url, "month", also_if_many=True)
    assert layout_of(connection) is not None


def test_migrating_again_and_going_back_leave_nothing(
    database_url: str, divided: psycopg.Connection[Any]
) -> None:
    assert migrations.migrate(database_url) == migrations.heads()
    [(since, told)] = divided.execute(
        "SELECT serves_since, version_num FROM jobbridge_version WHERE revision ~ '^0'"
    ).fetchall()
    assert since >= "0030_batches"
    assert told != "0014_relatives", "0.1.0 names the columns of a key that is another one now"

    migrations.downgrade(database_url, "base")

    left = divided.execute("SELECT relname FROM pg_class WHERE relname ~ '^job(s|_details)'").fetchall()
    assert left == []


def test_an_index_of_a_later_release_is_made_partition_by_partition(divided: psycopg.Connection[Any]) -> None:
    made = {"jobs_later_idx": "CREATE INDEX CONCURRENTLY jobs_later_idx ON public.jobs (tenant, user_id)"}

    create_indexes(divided, "jobs", made)
    create_indexes(divided, "jobs", made)

    parts = divided.execute(
        "SELECT count(*) FROM pg_inherits JOIN pg_index ON indexrelid = inhrelid"
        " WHERE inhparent = 'jobs_later_idx'::regclass AND indisvalid"
    ).fetchone()
    layout = layout_of(divided)
    assert layout is not None
    assert parts == (len(layout.partitions) + 1,)
    whole = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'jobs_later_idx'::regclass"
    assert divided.execute(whole).fetchone() == (True,)

    drop_indexes(divided, ["jobs_later_idx"])

    assert divided.execute("SELECT to_regclass('jobs_later_idx')").fetchone() == (None,)


# -- jobs in them


def test_a_job_that_is_sent_goes_to_the_partition_of_now(
    app: Celery, divided: psycopg.Connection[Any]
) -> None:
    from celery import chain, group

    task = app.tasks["parity.total"]
    ids = [task.delay([1]).id, app.send_task("parity.total", [[1]]).id]
    ids += [each.id for each in group(task.s([1]), task.s([2])).apply_async().results]
    ids.append(chain(task.si([1]), task.si([2])).apply_async().parent.id)
    ids.append(str(uuid4()))
    task.apply_async([[1]], task_id=ids[-1])

    place = _where(divided)

    now = f"jobs_{name_of(start_of(Width.MONTH, NOW))}"
    assert [place[UUID(each)] for each in ids] == [now] * 5 + ["jobs_default"]


def test_a_missing_partition_stops_nobody_and_is_made_later(
    app: Celery, divided: psycopg.Connection[Any]
) -> None:
    name = name_of(start_of(Width.MONTH, NOW))
    layout = layout_of(divided)
    assert layout is not None
    for each in layout.partitions:
        if each.name >= name:
            for table in ("jobs", "job_details"):
                divided.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(f"{table}_{each.name}")))
    sent = UUID(app.tasks["parity.total"].delay([1]).id)
    other = _add(divided, NOW, job_id=uuid4())
    assert _where(divided)[sent] == "jobs_default"
    before = _counted(app)

    Pruner(app).run(NEVER_STOPPED)

    place = _where(divided)
    assert place[sent] == f"jobs_{name}"
    assert place[other] == "jobs_default"
    after = layout_of(divided)
    assert after is not None
    assert after.ends_at == layout.ends_at
    assert _counted(app) == before == _rows(divided)


def test_too_many_strays_wait_for_somebody_to_migrate(
    database_url: str, divided: psycopg.Connection[Any]
) -> None:
    layout = layout_of(divided)
    assert layout is not None
    late = layout.partitions[-1].starts_at
    for table in ("jobs", "job_details"):
        divided.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(f"{table}_{name_of(late)}")))
    strays = [_add(divided, late + timedelta(hours=1)) for _ in range(3)]
    left = layout_of(divided)
    assert left is not None

    assert ahead.make_ahead(divided, left, NOW, most_strays=2) == []
    assert {_where(divided)[each] for each in strays} == {"jobs_default"}

    partition(database_url, "month")

    assert {_where(divided)[each] for each in strays} == {f"jobs_{name_of(late)}"}


def test_marks_and_estimates_are_of_all_partitions(app: Celery, divided: psycopg.Connection[Any]) -> None:
    divided.execute("SET session_replication_role = replica")
    for days in (0, 40, 80):
        _add(divided, NOW - timedelta(days=days), "failed")
    divided.execute("UPDATE jobs SET completed_at = NULL, unsuccessful = NULL")
    divided.execute("SET session_replication_role = origin")

    assert mark_ends(divided) == 3
    assert mark_ends(divided) == 0

    divided.execute("ANALYZE jobs")
    divided.execute("SELECT pg_stat_force_next_flush()")
    assert fewest_jobs(app.database) is not None


# -- what is past


def test_a_partition_whose_jobs_are_past_goes_as_a_whole(
    app: Celery, divided: psycopg.Connection[Any]
) -> None:
    old = _an_old_month()
    gone = [_add(divided, old + timedelta(minutes=n), tenant=f"t{n % 3}") for n in range(20)]
    late = _add(divided, end_of(Width.MONTH, old) - timedelta(minutes=1), ended_at=NOW - timedelta(days=3))
    opened = _add(divided, old, "queued")
    young = _add(divided, NOW - timedelta(days=1))
    divided.execute(
        "INSERT INTO job_inbox (tenant, event_id, job_id, name, payload)"
        " SELECT tenant, gen_random_uuid(), job_id, 'e', '1' FROM jobs"
    )
    name = name_of(start_of(Width.MONTH, old))

    counters = Pruner(app).run(NEVER_STOPPED)

    assert counters["jobs"] == len(gone)
    place = _where(divided)
    assert set(place) == {late, opened, young}
    assert place[late] == place[opened] == "jobs_default"
    assert set(_where(divided, "job_details")) == {late, opened, young}
    assert {job for (job,) in divided.execute("SELECT job_id FROM job_inbox")} == {late, opened, young}
    assert divided.execute("SELECT to_regclass(%s)", [f"jobs_{name}"]).fetchone() == (None,)
    assert divided.execute("SELECT to_regclass(%s)", [f"job_details_{name}"]).fetchone() == (None,)
    assert _counted(app) == 3
    while CountStore(app.database).fold():
        pass
    assert _counted(app) == 3
    # It is a job as any other, and ends as one.
    key = JobKey(tenant=TenantId("acme"), job_id=opened)
    job = EventsOf(key=key, engine=Engine.CELERY)
    assert app.recorder.record(job.started()).status is JobStatus.PROCESSING


def test_what_a_tenant_keeps_for_longer_stays(app: Celery, divided: psycopg.Connection[Any]) -> None:
    old = _an_old_month()
    _add(divided, old)
    kept = _add(divided, old, tenant="archive")
    divided.execute("INSERT INTO job_retention (tenant, status, keep) VALUES ('archive', 'completed', NULL)")

    Pruner(app).run(NEVER_STOPPED)

    assert _where(divided) == {kept: "jobs_default"}


def test_where_too_many_are_kept_jobs_go_one_by_one(
    app: Celery, divided: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expire.kept, "__kwdefaults__", {"most": 1})
    old = _an_old_month()
    gone = _add(divided, old)
    kept = {_add(divided, old, "cancelled") for _ in range(3)}
    name = f"jobs_{name_of(start_of(Width.MONTH, old))}"

    Pruner(app).run(NEVER_STOPPED)

    assert set(_where(divided)) == kept
    assert gone not in _where(divided)
    assert set(_where(divided).values()) == {name}
    assert _counted(app) == 3


def test_rows_of_the_default_partition_are_deleted_one_by_one(
    app: Celery, divided: psycopg.Connection[Any]
) -> None:
    _add(divided, _an_old_month(), job_id=uuid4())
    young = _add(divided, NOW - timedelta(days=2), job_id=uuid4())

    assert Pruner(app).run(NEVER_STOPPED)["jobs"] == 1

    assert _where(divided) == {young: "jobs_default"}


def test_without_retention_nothing_goes(database_url: str, divided: psycopg.Connection[Any]) -> None:
    kept = _add(divided, _an_old_month())
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}))

    Pruner(app).run(NEVER_STOPPED)
    app.close()

    assert set(_where(divided)) == {kept}


def test_who_dies_between_detaching_and_dropping_is_followed_by_the_next(
    app: Celery, divided: psycopg.Connection[Any]
) -> None:
    old = _an_old_month()
    gone = [_add(divided, old + timedelta(minutes=n)) for n in range(5)]
    opened = _add(divided, old, "processing")
    month = _month_of(divided, old)
    retention = app.settings.retention
    ids = expire.kept(divided, month, retention)
    assert ids == [opened]
    expire.detach(divided, month, ids)  # and no further
    assert detached(divided) == [month]
    assert set(_where(divided)) == {opened}

    counters = Pruner(app).run(NEVER_STOPPED)

    assert counters["jobs"] == len(gone)
    assert detached(divided) == []
    assert set(_where(divided)) == {opened}
    assert _counted(app) == 1


def test_what_came_to_be_kept_while_it_was_looked_at_stays(
    app: Celery, divided: psycopg.Connection[Any]
) -> None:
    old = _an_old_month()
    again = _add(divided, old)
    month = _month_of(divided, old)
    retention = app.settings.retention
    ids = expire.kept(divided, month, retention)
    assert ids == []
    divided.execute("UPDATE jobs SET completed_at = now() WHERE job_id = %s", [again])  # it ran once more
    expire.detach(divided, month, ids)

    assert expire.drop_detached(divided, month, retention) == 0

    assert _where(divided) == {again: "jobs_default"}
    assert set(_where(divided, "job_details")) == {again}


def test_who_has_the_table_for_long_is_not_waited_for(
    app: Celery, database_url: str, divided: psycopg.Connection[Any]
) -> None:
    gone = _add(divided, _an_old_month())
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM jobs LIMIT 1")  # and its transaction stays open

        Pruner(app).run(NEVER_STOPPED)

        assert gone in _where(divided)
    Pruner(app).run(NEVER_STOPPED)
    assert _where(divided) == {}


_STEPS = [
    "DETACH PARTITION",
    'INSERT INTO "public"."jobs_default"',
    "COMMENT ON TABLE",
    "job_count_parts",
    "DROP TABLE",
]


@pytest.mark.parametrize("statement", _STEPS)
def test_a_kill_at_any_step_loses_and_repeats_nothing(
    app: Celery, database_url: str, divided: psycopg.Connection[Any], statement: str
) -> None:
    old = _an_old_month()
    for n in range(5):
        _add(divided, old + timedelta(minutes=n))
    opened = _add(divided, old, "queued")
    month = _month_of(divided, old)

    dying = psycopg.connect(database_url, autocommit=True)
    killed: Any = _KilledAt(dying, statement, by=divided)

    with pytest.raises(psycopg.OperationalError):
        expire.drop(killed, month, app.settings.retention)

    assert dying.closed
    assert _rows(divided) == (1 if statement in {"job_count_parts", "DROP TABLE"} else 6)
    assert _counted(app) == 6
    Pruner(app).run(NEVER_STOPPED)
    assert _where(divided) == {opened: "jobs_default"}
    assert set(_where(divided, "job_details")) == {opened}
    assert _counted(app) == 1


class _KilledAt:
    """A connection whose session Postgres ends before it can run a statement."""

    def __init__(
        self, connection: psycopg.Connection[Any], statement: str, *, by: psycopg.Connection[Any]
    ) -> None:
        self._connection, self._statement, self._by = connection, statement, by

    def execute(self, statement: Any, params: Any = None) -> Any:
        text = (
            statement.as_string(self._connection) if isinstance(statement, sql.Composable) else str(statement)
        )
        if self._statement in text:
            self._by.execute("SELECT pg_terminate_backend(%s, 5000)", [self._connection.info.backend_pid])
        return self._connection.execute(statement, params)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_bounds_are_those_of_time(divided: psycopg.Connection[Any]) -> None:
    layout = layout_of(divided)
    assert layout is not None
    assert layout.has_default
    for each in layout.partitions:
        assert each.first == lowest_id(each.starts_at)
        assert each.ends_at == end_of(Width.MONTH, each.starts_at)
