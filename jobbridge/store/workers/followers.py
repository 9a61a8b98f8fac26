"""Who follows the progress of a job: while anybody does, Postgres tells each change of its status and progress.

Who follows has a row for the job that is good for `LEASE`. The trigger on `jobs` that sees what changes (migration
0031) notifies `CHANNEL` of the job's id while there is such a row. As with `awaiters`, that is a hint and no message.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, LiteralString

CHANNEL: Final = "jobbridge_progress"
LEASE: Final = timedelta(seconds=30)

#: With it go the rows of who ended without a word.
FOLLOW: LiteralString = """
WITH gone AS (
    DELETE FROM public.job_followers WHERE until < now() - interval '1 hour'
)
INSERT INTO public.job_followers (job_id, follower_id, until)
VALUES (%(job_id)s, %(follower_id)s, now() + %(lease)s)
ON CONFLICT (job_id, follower_id) DO UPDATE SET until = excluded.until
"""

UNFOLLOW: LiteralString = """
DELETE FROM public.job_followers WHERE job_id = %(job_id)s AND follower_id = %(follower_id)s
"""
