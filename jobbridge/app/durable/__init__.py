"""Durable jobs: what a handler's durable calls give, and how a job is suspended and goes on (decision 0032).

In comes a call of the running handler; out goes its recorded value, or the job is suspended: its attempt ends, and it
is sent again in the same transaction.
"""
