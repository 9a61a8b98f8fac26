"""Who waits for results: while anybody does, Postgres tells the ids of jobs as they end.

A process that waits has a row that is good for `LEASE`. Triggers on `jobs` and `job_keys` (migration 0025) notify
`CHANNEL` while there is such a row: of a job's end the job's id, of a value its key, cut at `LONGEST`. A notification
is a hint and no message: what ended while the row was being made is not told, nor what ends while the queue of
notifications is half full.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, LiteralString

CHANNEL: Final = "jobbridge_results"
#: Characters of a key that are told.
LONGEST: Final = 1000
LEASE: Final = timedelta(seconds=30)

#: With it go the rows of who ended without a word.
AWAIT: LiteralString = """
WITH gone AS (
    DELETE FROM public.job_awaiters WHERE until < now() - interval '1 hour'
)
INSERT INTO public.job_awaiters (awaiter_id, until)
VALUES (%(awaiter_id)s, now() + %(lease)s)
ON CONFLICT (awaiter_id) DO UPDATE SET until = excluded.until
"""

LEAVE: LiteralString = "DELETE FROM public.job_awaiters WHERE awaiter_id = %(awaiter_id)s"
