"""`jobs` and `job_details` in partitions by time (decision 0035), where `migrate --partition-by` made them so.

In: how wide, what time it is, what is kept how long. Out: partitions ahead of their time; those past it are gone.
"""
