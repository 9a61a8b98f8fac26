"""A workflow that Temporal's sandbox refuses, although it can be imported."""

from __future__ import annotations

from temporalio import workflow

if workflow.unsafe.in_sandbox():
    raise RuntimeError("not in a sandbox")


@workflow.defn
class BrokenWorkflow:
    @workflow.run
    async def run(self) -> None: ...
