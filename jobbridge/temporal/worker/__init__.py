"""Celery's worker with Temporal as its source of messages: pollers, activities, the bridge, outcomes, progress.

In come activity tasks, out goes what the workflow is told. An application's own workflows are served beside.
"""
