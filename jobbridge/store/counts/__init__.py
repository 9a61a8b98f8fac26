"""How many jobs there are, and how they flow: exact, without reading the jobs.

Triggers on `jobs` write what changed; services add it up; out go numbers by status, type, tenant and hour.
"""
