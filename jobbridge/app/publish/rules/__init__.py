"""Under which rules across the fleet a message becomes a job (decision 0033).

In: the task, what the caller gave, what is set at run time. Out: the holds that are written with the job's row.
"""
