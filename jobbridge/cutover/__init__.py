"""Moves what waits between the engines, and from an old broker into ours (decision 0031).

In: an app, and which jobs and schedules are meant. Out: a report of what went, what stays and why, and whether both
sides agree. `run` moves between engines, `take_over` empties an old broker, `check` says before what will not work.
"""
