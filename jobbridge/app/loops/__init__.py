"""Event loops: sending from a caller's own (`submission`), and the worker's, on which coroutines run (`coroutines`).

In come a caller's loop, and tasks that are `async def`; out go the same messages and the same outcomes as without.
"""
