"""What somebody writes by hand for Temporal: one workflow with one activity; and the shape of JobBridge's original.

That one has five activities for a job: it says that the job runs, begins a step, runs the handler, ends the step, says
that the job has ended; the four others write to Postgres.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow

_WITHIN = timedelta(minutes=5)


async def _activity(name: str, *arguments: Any) -> Any:
    return await workflow.execute_activity(name, args=arguments, start_to_close_timeout=_WITHIN)


@workflow.defn(name="bareJob")
class BareJob:
    """One activity."""

    @workflow.run
    async def run(self, name: str, number: int, seconds: float) -> Any:
        return await _activity(name, number, seconds)


@workflow.defn(name="fiveJob")
class FiveJob:
    """Five activities, one after the other."""

    @workflow.run
    async def run(self, name: str, number: int, seconds: float) -> Any:
        job = workflow.info().workflow_id
        await _activity("updateJobStatus", job, "processing")
        await _activity("createJobDetail", job, name)
        result = await _activity(name, number, seconds)
        await _activity("completeJobDetail", job, name)
        await _activity("updateJobStatus", job, "completed")
        return result


class _Chord:
    async def _body(self, workflow_name: str, size: int) -> int:
        parts = (
            workflow.execute_child_workflow(workflow_name, args=("echo", number, 0.0))
            for number in range(size)
        )
        return sum(await asyncio.gather(*parts))


@workflow.defn(name="bareChord")
class BareChord(_Chord):
    """Children, and the sum of their results."""

    @workflow.run
    async def run(self, size: int) -> int:
        return await self._body("bareJob", size)


@workflow.defn(name="fiveChord")
class FiveChord(_Chord):
    """As the bare one."""

    @workflow.run
    async def run(self, size: int) -> int:
        return await self._body("fiveJob", size)
