"""Rules across the fleet: what holds a job, what is decided at a commit (decision 0033), and what is set at run time.

In: a job's rules, in the transaction that makes it. Out: who is held, who runs, and what the rules are.
"""
