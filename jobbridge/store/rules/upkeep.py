"""What nobody's commit sees to: places of jobs whose worker is gone, and jobs that were passed over.

What if the process dies between two steps? They are one transaction, and the next run does them again.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import LiteralString

from jobbridge.store.database import Database
from jobbridge.store.fetch import first_tuple
from jobbridge.store.rules.holds import COME_DUE
from jobbridge.store.statuses import FINAL_STATUSES

#: Of jobs that are gone, or have ended: a cancelled one when its worker cannot say any more that its work has stopped.
FREE: LiteralString = f"""
DELETE FROM public.job_holds AS hold
WHERE NOT EXISTS (
    SELECT FROM public.jobs AS job
    WHERE job.job_id = hold.job_id AND job.tenant = hold.tenant
      AND (job.status NOT IN ({FINAL_STATUSES}) OR job.status = 'cancelled' AND EXISTS (
        SELECT FROM public.job_workers AS worker WHERE worker.number = job.worker_number
      ))
)
"""

#: Somebody had their message or row when it was their turn, and did not end them.
AGAIN: LiteralString = "UPDATE public.job_holds SET state = 'waiting' WHERE state = 'passed'"

#: Whose turn it was when a transaction that had their row was rolled back.
LOOK: LiteralString = """
INSERT INTO public.job_rule_changes (transaction, rank, rule)
SELECT pg_current_xact_id()::text::bigint, known.rank, known.rule
FROM public.job_limits AS known
WHERE EXISTS (SELECT FROM public.job_holds AS hold WHERE hold.rule = known.rule AND hold.state = 'waiting')
ON CONFLICT DO NOTHING
"""

PRUNE: LiteralString = """
DELETE FROM public.job_limits AS known
WHERE NOT is_set AND updated_at < clock_timestamp() - %(older_than)s::interval
  AND coalesce(next_at < clock_timestamp(), true)
  AND NOT EXISTS (SELECT FROM public.job_holds AS hold WHERE hold.rule = known.rule)
"""

HAS_RULES: LiteralString = "SELECT EXISTS (SELECT FROM public.job_limits)"


def has_rules(database: Database) -> bool:
    """Tell whether any rule holds a job, or held one lately."""
    return database.run(lambda own: first_tuple(own, HAS_RULES) == (True,))


def look_after(database: Database, *, older_than: timedelta = timedelta(hours=1)) -> Counter[str]:
    """Free places that nobody frees, and look at each rule at which jobs wait.

    Args:
        database: Whose jobs.
        older_than: Rules that held no job for so long are forgotten.
    """
    counters = Counter[str]()
    with database.transaction() as own:
        counters["freed"] = own.execute(FREE).rowcount
        counters["passed"] = own.execute(AGAIN).rowcount
        counters["due"] = own.execute(COME_DUE).rowcount
        own.execute(LOOK)
        counters["forgotten"] = own.execute(PRUNE, {"older_than": older_than}).rowcount
    return counters
