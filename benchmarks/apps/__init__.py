"""What runs in processes of the systems: their tasks, and who sends them. Only this imports the systems.

`python -m benchmarks.apps.drive` sends; each system's own command runs the worker. The environment says which
system, and where its servers and the ledger are (`benchmarks.systems`).
"""
