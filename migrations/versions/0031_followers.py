"""Who follows the progress of one job, and the trigger that tells them of each change of it.

The trigger is the one that writes what changes for those who watch all jobs (0010): it knows when there is something
to tell. A NOTIFY takes a lock of the whole server until the commit is through, so only followed jobs are told.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0031_followers"
down_revision = "0030_batches"
branch_labels = None
depends_on = None
serves_since = "0014_relatives"  # a table that nobody has to know, and more of what a trigger does

#: Made by 0010.
replaces = ["public.jobbridge_tell_job"]

#: As its owner, with qualified names: see 0008.
_FUNCTION = """
CREATE OR REPLACE FUNCTION public.jobbridge_tell_job() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    is_anyone_asleep boolean;{declared}
BEGIN
    SELECT {asked} FROM public.job_watchers WHERE until > now();
    IF is_anyone_asleep IS NOT NULL THEN
        INSERT INTO public.job_events (event_id, job_id)
        VALUES (nextval('public.job_events_event_id_seq'), new.job_id);
        IF is_anyone_asleep THEN
            PERFORM pg_notify('jobbridge_events', '');
        END IF;
    END IF;{told}
    RETURN NULL;
END
$$
"""
_BEFORE = {"declared": "", "asked": "bool_or(is_asleep) INTO is_anyone_asleep", "told": ""}
#: One statement asks for both.
_NOW = {
    "declared": """
    is_followed boolean;""",
    "asked": """bool_or(is_asleep),
        EXISTS (SELECT FROM public.job_followers AS own WHERE own.job_id = new.job_id AND own.until > now())
    INTO is_anyone_asleep, is_followed""",
    "told": """
    IF is_followed AND pg_notification_queue_usage() < 0.5 THEN
        PERFORM pg_notify('jobbridge_progress', new.job_id::text);
    END IF;""",
}


def upgrade() -> None:
    op.create_table(
        "job_followers",
        sa.Column("job_id", sa.Uuid, nullable=False),
        sa.Column("follower_id", sa.Uuid, nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("job_id", "follower_id", name="job_followers_pkey"),
        prefixes=["UNLOGGED"],
        postgresql_with={"fillfactor": 50},
    )
    op.execute(_FUNCTION.format(**_NOW))


def downgrade() -> None:
    op.execute(_FUNCTION.format(**_BEFORE))
    op.drop_table("job_followers")
