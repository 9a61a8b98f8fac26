"""Statements that make, delete or truncate many jobs are counted by the statement, not by the job.

An import of ten million jobs left ten million changes, which each count then read until they were folded. Such a
statement now adds its sums to the counts themselves, as rows of a `part` of its own: nobody waits for anybody's, and
whoever reads adds up all parts. They are merged later (`jobbridge.store.counts.counts`).
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013_bulk_writes"
down_revision = "0012_existing_counts"
branch_labels = None
depends_on = None

#: Tables with a part, and the key that they had before.
_KEYS = {
    "job_counts": ("tenant", "engine", "status"),
    "job_hours": ("tenant", "status", "hour", "engine"),
    "job_flow": ("tenant", "span", "at", "engine", "status", "bucket"),
    "job_flow_totals": ("span", "at", "engine", "status", "bucket"),
}

_PART_INDEXES = {table: ["tenant", "part"] if "tenant" in key else ["part"] for table, key in _KEYS.items()}

_BOUNDS = (
    "'{1,2,3,4,6,8,11,16,23,32,45,64,91,128,181,256,362,512,724,1024,1448,2048,2896,4096,5793,8192,11585,16384,23170,"
    "32768,46341,65536,92682,131072,185364,262144,370728,524288,741455,1048576,1482910,2097152,2965821,4194304,5931642,"
    "8388608,11863283,16777216,23726566,33554432,47453133,67108864,94906266,134217728,189812531,268435456,379625062,"
    "536870912,759250125,1073741824}'::bigint[]"
)

_HEAD = "RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$"
_FINAL = "('completed', 'failed', 'cancelled', 'expired', 'skipped')"

#: As in 0008: what is made final has ended, when its row says so, and took what lies between.
_ENDED_AT = f"CASE WHEN status IN {_FINAL} THEN coalesce(completed_at, updated_at) END"
_TOOK = f"CASE WHEN status IN {_FINAL} THEN 1000 * extract(epoch FROM {_ENDED_AT} - started_at) END"


def _add_part(rows: str, sign: str) -> str:
    """The sums of a statement's rows, as a part of their own; by the key, so that its pages are written once."""
    return f"""
        INSERT INTO public.job_hours (tenant, status, hour, engine, part, jobs)
        SELECT tenant, status, date_trunc('hour', created_at, 'UTC'), runner_type, own, {sign}count(*)
        FROM {rows}
        GROUP BY 1, 2, 3, 4
        ORDER BY 1, 2, 3, 4;
        INSERT INTO public.job_counts (tenant, engine, status, part, jobs)
        SELECT tenant, runner_type, status, own, {sign}count(*)
        FROM {rows}
        GROUP BY 1, 2, 3;"""


_NEW = f"""
CREATE FUNCTION public.jobbridge_count_new_jobs() {_HEAD}
DECLARE
    own bigint;
BEGIN
    INSERT INTO public.job_count_changes (tenant, hour, engine, status, flow_hour, flow_ms)
    SELECT tenant, date_trunc('hour', created_at, 'UTC'), runner_type, status,
        date_trunc('hour', {_ENDED_AT}, 'UTC'), {_TOOK}
    FROM made
    WHERE NOT EXISTS (SELECT FROM made OFFSET 1000);
    IF FOUND OR NOT EXISTS (SELECT FROM made) THEN
        RETURN NULL;
    END IF;
    own := nextval('public.job_count_parts');
    {_add_part("made", "")}
    WITH ended AS (
        SELECT tenant, runner_type AS engine, status, {_ENDED_AT} AS ended_at, ({_TOOK})::bigint AS took
        FROM made
    ), happened AS MATERIALIZED (
        SELECT tenant, engine, status, date_trunc('hour', ended_at, 'UTC') AS hour,
            CASE WHEN took IS NULL THEN -1 ELSE width_bucket(took - 1, {_BOUNDS}) END::smallint AS bucket,
            count(*) AS jobs, sum(coalesce(greatest(took, 0), 0)) AS ms
        FROM ended
        WHERE ended_at IS NOT NULL
        GROUP BY 1, 2, 3, 4, 5
    ), spans AS MATERIALIZED (
        SELECT tenant, span, CASE span WHEN 'hour' THEN hour ELSE date_trunc('day', hour, 'UTC') END AS at,
            engine, status, bucket, sum(jobs) AS jobs, sum(ms) AS ms
        FROM happened CROSS JOIN (VALUES ('hour', interval '8 days'), ('day', '90 days')) AS known (span, kept)
        WHERE hour > now() - kept
        GROUP BY 1, 2, 3, 4, 5, 6
    ), flow AS (
        INSERT INTO public.job_flow (tenant, span, at, engine, status, bucket, part, jobs, ms)
        SELECT tenant, span, at, engine, status, bucket, own, jobs, ms FROM spans
    )
    INSERT INTO public.job_flow_totals (span, at, engine, status, bucket, part, jobs, ms)
    SELECT span, at, engine, status, bucket, own, sum(jobs), sum(ms)
    FROM (
        SELECT span, at, engine, status, bucket, jobs, ms FROM spans
        UNION ALL
        SELECT 'ever', '2000-01-01 00:00Z', engine, status, bucket, jobs, ms FROM happened
    ) AS each
    GROUP BY 1, 2, 3, 4, 5;
    RETURN NULL;
END
$$
"""

_GONE = f"""
CREATE FUNCTION public.jobbridge_count_gone_jobs() {_HEAD}
DECLARE
    own bigint;
BEGIN
    INSERT INTO public.job_count_changes (tenant, hour, engine_before, status_before)
    SELECT tenant, date_trunc('hour', created_at, 'UTC'), runner_type, status
    FROM gone
    WHERE NOT EXISTS (SELECT FROM gone OFFSET 1000);
    IF FOUND OR NOT EXISTS (SELECT FROM gone) THEN
        RETURN NULL;
    END IF;
    own := nextval('public.job_count_parts');
    {_add_part("gone", "-")}
    RETURN NULL;
END
$$
"""

#: No jobs are left. What is not folded yet may still tell of starts and ends: it stays, and counts nothing.
#: The locks: somebody who folds has rows that are seen neither before nor after, else.
_NONE = f"""
CREATE FUNCTION public.jobbridge_count_no_jobs() {_HEAD}
BEGIN
    LOCK TABLE public.job_count_changes, public.job_counts, public.job_hours IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM public.job_counts;
    DELETE FROM public.job_hours;
    DELETE FROM public.job_count_changes WHERE flow_hour IS NULL OR status IS NULL;
    UPDATE public.job_count_changes SET status_before = status, engine_before = engine;
    RETURN NULL;
END
$$
"""

_TELL_NEW = f"""
CREATE FUNCTION public.jobbridge_tell_new_jobs() {_HEAD}
DECLARE
    is_anyone_asleep boolean;
BEGIN
    SELECT bool_or(is_asleep) INTO is_anyone_asleep FROM public.job_watchers WHERE until > now();
    IF is_anyone_asleep IS NOT NULL THEN
        INSERT INTO public.job_events (event_id, job_id)
        SELECT nextval('public.job_events_event_id_seq'), job_id FROM made;
        IF is_anyone_asleep THEN
            PERFORM pg_notify('jobbridge_events', '');
        END IF;
    END IF;
    RETURN NULL;
END
$$
"""

_FUNCTIONS = {
    "jobbridge_count_new_jobs": _NEW,
    "jobbridge_count_gone_jobs": _GONE,
    "jobbridge_count_no_jobs": _NONE,
    "jobbridge_tell_new_jobs": _TELL_NEW,
}

_MADE = "REFERENCING NEW TABLE AS made FOR EACH STATEMENT"
#: Trigger: when and for what, and what it does; first as it is from here on, then as it was before (or nothing).
_TRIGGERS = {
    "jobbridge_count_new": (
        ("INSERT", _MADE, "jobbridge_count_new_jobs"),
        ("INSERT", "FOR EACH ROW", "jobbridge_count_job"),
    ),
    "jobbridge_count_gone": (
        ("DELETE", "REFERENCING OLD TABLE AS gone FOR EACH STATEMENT", "jobbridge_count_gone_jobs"),
        ("DELETE", "FOR EACH ROW", "jobbridge_count_job"),
    ),
    "jobbridge_count_none": (("TRUNCATE", "FOR EACH STATEMENT", "jobbridge_count_no_jobs"), None),
    "jobbridge_tell_new": (
        ("INSERT", _MADE, "jobbridge_tell_new_jobs"),
        ("INSERT", "FOR EACH ROW", "jobbridge_tell_job"),
    ),
}

makes = [f"public.{table}_part_idx" for table in _PART_INDEXES]


def upgrade() -> None:
    op.execute("CREATE SEQUENCE public.job_count_parts")
    for table, key in _KEYS.items():
        op.add_column(table, sa.Column("part", sa.BigInteger, nullable=False, server_default=sa.text("0")))
        _set_key(table, (*key, "part"))
        op.create_index(
            f"{table}_part_idx", table, _PART_INDEXES[table], postgresql_where=sa.text("part <> 0")
        )
    for name, function in _FUNCTIONS.items():
        op.execute(function)
        op.execute(f"REVOKE ALL ON FUNCTION public.{name}() FROM PUBLIC")
    for name, (now, before) in _TRIGGERS.items():
        _replace_trigger(name, before, now)


def downgrade() -> None:
    for name, (now, before) in _TRIGGERS.items():
        _replace_trigger(name, now, before)
    for name in _FUNCTIONS:
        op.execute(f"DROP FUNCTION public.{name}()")
    for table, key in _KEYS.items():
        _merge(table, key)
        op.drop_index(f"{table}_part_idx", table)
        _set_key(table, key)
        op.drop_column(table, "part")
    op.execute("DROP SEQUENCE public.job_count_parts")


def _set_key(table: str, columns: tuple[str, ...]) -> None:
    op.drop_constraint(f"{table}_pkey", table)
    op.create_primary_key(f"{table}_pkey", table, list(columns))


def _replace_trigger(name: str, old: tuple[str, str, str] | None, new: tuple[str, str, str] | None) -> None:
    if old is not None:
        op.execute(f"DROP TRIGGER {name} ON public.jobs")
    if new is not None:
        event, how, function = new
        op.execute(
            f"CREATE TRIGGER {name} AFTER {event} ON public.jobs {how} EXECUTE FUNCTION public.{function}()"
        )


def _merge(table: str, key: tuple[str, ...]) -> None:
    columns = ", ".join(key)
    sums = ("jobs",) if table in {"job_counts", "job_hours"} else ("jobs", "ms")
    op.execute(f"""
        WITH parts AS (
            DELETE FROM public.{table} WHERE part <> 0 RETURNING {columns}, {", ".join(sums)}
        )
        INSERT INTO public.{table} AS cell ({columns}, part, {", ".join(sums)})
        SELECT {columns}, 0, {", ".join(f"sum({name})" for name in sums)} FROM parts GROUP BY {columns}
        ON CONFLICT ({columns}, part)
        DO UPDATE SET {", ".join(f"{name} = cell.{name} + excluded.{name}" for name in sums)}
    """)
