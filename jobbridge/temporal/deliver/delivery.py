"""How a job reaches Temporal, and how it is stopped there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import Priority, TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.exceptions import ActivityAlreadyStartedError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from jobbridge.core.envelope import Envelope
from jobbridge.core.events import Accepted
from jobbridge.core.handlers import handler_of
from jobbridge.core.keys import Engine, JobKey, TenantId, job_id_for
from jobbridge.core.light import activity_id_in, as_light, external_id_of, is_light
from jobbridge.errors import EngineUnavailable
from jobbridge.postgres import on_loop
from jobbridge.settings import Settings
from jobbridge.temporal.deliver import light
from jobbridge.temporal.deliver.acceptances import Acceptances
from jobbridge.temporal.wire import contract, search_attributes
from jobbridge.temporal.wire.client import TemporalClient, is_unreachable, unavailable
from jobbridge.temporal.wire.contract import ExecuteOrder, temporal_priority
from jobbridge.temporal.wire.messages import continuation, to_temporal
from jobbridge.temporal.wire.payloads import if_readable
from jobbridge.temporal.wire.signals import CancelRequest

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: How long a new message of a job waits for the workflow of the one before, which is about to close.
CLOSING_TIME = timedelta(seconds=1)
#: Starts of a batch that wait for their answer at the same time: more are no faster (dev server, two cores).
IN_FLIGHT = 50
ALREADY_STARTED = (WorkflowAlreadyStartedError, ActivityAlreadyStartedError)
Answer = TypeVar("Answer")
Start = Callable[[Client], Awaitable[Accepted]]
_FAIRNESS_KEY_LIMIT = 64
#: How the header `origin` begins of what `jobbridge.enqueue` has made (migration 0020).
_FROM_SQL = "sql@"
#: Of a server that is away. One that only has too much to do is asked again at once.
_SILENT = {RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED}


def task_queue_for(app: Celery, queue: str) -> str:
    """Give Temporal's task queue for a Celery queue: the default one has a name of its own, others keep theirs."""
    return app.settings.temporal_job_task_queue if queue == app.conf.task_default_queue else queue


class TemporalDelivery:
    """The way to Temporal. Safe to call from several threads; never used in a forked pool child.

    Args:
        settings: How Temporal is reached.
        app: Whose tasks the messages are of.
        client: Instead of one made from the settings.
    """

    def __init__(self, settings: Settings, app: Celery, *, client: TemporalClient | None = None) -> None:
        self.client = client or TemporalClient(settings)
        self._app = app
        self._acceptances = Acceptances(app)

    def deliver(self, envelope: Envelope) -> Accepted:
        """Start the workflow of a job; starting it twice starts it once.

        At once, also for a job that is not due: the workflow sleeps until then. In a start delay (server 1.32) it would
        neither hear a cancellation nor answer a query.

        Raises:
            EngineUnavailable: It could not be reached; `certainly_not_started` says whether it may run there all
                the same.
        """
        envelope = self._as_chosen(envelope)
        deadline = time.monotonic() + CLOSING_TIME.total_seconds()
        while True:
            try:
                return self._start(envelope)
            except ALREADY_STARTED:
                if accepted := self._same_delivery(envelope):
                    return accepted
            if time.monotonic() > deadline:
                raise unavailable(
                    f"The workflow of an earlier message of job {envelope.id} still runs.",
                    certainly_not_started=False,
                    hint="Wait: the relay delivers this message when that workflow has closed.",
                )
            on_loop.sleep(0.1)

    def deliver_many(self, envelopes: Sequence[Envelope]) -> list[Accepted]:
        """Start the workflows of different jobs, `IN_FLIGHT` at a time; who is left out is to be delivered alone.

        Nothing is raised: a server that is away is remembered as after any other call.
        """
        starts: list[Start] = []
        for envelope in envelopes:
            with suppress(TypeError, ValueError, KeyError):  # it says why when it is delivered alone
                starts.append(self._start_of(self._as_chosen(envelope)))
        accepted: list[Accepted] = []
        turns = asyncio.Semaphore(IN_FLIGHT)
        is_away = False

        async def start(client: Client, work: Start) -> None:
            nonlocal is_away
            async with turns:
                if is_away:
                    return
                try:
                    accepted.append(await work(client))
                except ALREADY_STARTED:
                    return
                except RPCError as error:
                    is_away = is_away or error.status in _SILENT

        async def start_all(client: Client) -> None:
            await asyncio.gather(*(start(client, each) for each in starts))

        with suppress(EngineUnavailable):
            self._call(start_all)
        if is_away:
            self.client.note_failure("Temporal does not answer.")
        return accepted

    def resume(self, envelope: Envelope, workflow_id: str) -> Accepted:
        """Hand a job that waited for its children to its workflow; start one if that has closed.

        Raises:
            EngineUnavailable: It could not be reached.
        """
        message = continuation(envelope.to_json())

        if is_light(envelope.headers) or not self._signal(workflow_id, contract.RESUME_JOB, message):
            return self.deliver(envelope)
        return _accepted(envelope, run_id=None, external_id=workflow_id)

    def prepare(self, *, asks: bool) -> None:
        """Make sure, before a job is recorded, that the settings can work.

        Args:
            asks: Whether the server may be asked, too.

        Raises:
            ConfigurationError: One cannot.
        """
        self.client.access  # noqa: B018  # reads them, or raises
        if asks:
            self.client.check_namespace()

    def check(self) -> None:
        """Ask whether the namespace is there.

        Raises:
            EngineUnavailable: It cannot be reached, or could not be a moment ago.
        """
        request = DescribeNamespaceRequest(namespace=self._app.settings.temporal_namespace)

        async def describe(client: Client) -> None:
            await client.workflow_service.describe_namespace(request)

        self.ask(describe)

    def known_failure(self) -> EngineUnavailable | None:
        """Give the failure of a moment ago, for as long as it is not worth while to try again. Asks nobody."""
        return self.client.known_failure()

    def accept(self, accepted: Accepted) -> None:
        """Have the row say that Temporal has the job: now, or within a moment if many are sent. Trouble is logged."""
        self._acceptances.note(accepted)

    def close(self) -> None:
        """Write what is to be written, and close the client."""
        self._acceptances.close()
        self.client.close()

    def cancel(self, task_id: str, *, reason: str | None, cancelled_by: str | None) -> bool:
        """Signal the job's workflow, or stop its activity; False when none runs.

        Raises:
            EngineUnavailable: It could not be reached.
        """
        request = CancelRequest(reason=reason or "cancelled", cancelled_by=cancelled_by)
        known_as = self._external_id(task_id)
        if activity_id := activity_id_in(known_as):
            return self._found(lambda client: light.cancel(client, activity_id, request.reason)) or False

        async def cancel(client: Client) -> bool:
            handle = client.get_workflow_handle(known_as)
            try:
                await handle.signal(contract.CANCEL_JOB, request.to_json())
            except RPCError as error:
                if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                    raise
                # It has had all the signals that Temporal lets a run have. This is none; the row knows the reason.
                await handle.cancel()
            return True

        return self._found(cancel) or False

    def is_running(self, external_id: str) -> bool:
        """Whether a workflow, or an activity, that rows call by this external id runs now.

        Raises:
            EngineUnavailable: It could not be reached.
        """
        return self._describe(external_id) is not None

    def ask(self, work: Callable[[Client], Awaitable[Answer]], *, timeout: timedelta | None = None) -> Answer:
        """Do several questions on the client's thread.

        Args:
            work: They must be answered within `timeout`, all of them.
            timeout: Ten seconds, by default.

        Raises:
            EngineUnavailable: It could not be reached, or refused one.
        """
        try:
            answer: Answer = self._call(work, timeout)
        except RPCError as error:
            raise _refused(error) from error
        return answer

    # -- starting

    def _as_chosen(self, envelope: Envelope) -> Envelope:
        """Have what was sent from SQL go as its task or the settings say, which `jobbridge.enqueue` does not know."""
        if is_light(envelope.headers) or not str(envelope.headers.get("origin")).startswith(_FROM_SQL):
            return envelope
        chosen = getattr(self._app.tasks.get(envelope.task), "temporal_light", None)
        goes_light = self._app.settings.temporal_light if chosen is None else bool(chosen)
        return replace(envelope, headers=as_light(envelope.headers)) if goes_light else envelope

    def _start(self, envelope: Envelope) -> Accepted:
        return self.ask(self._start_of(envelope))

    def _start_of(self, envelope: Envelope) -> Start:
        task = self._app.tasks.get(envelope.task)
        job, message = to_temporal(envelope, is_handler=handler_of(task) is not None)

        task_queue = task_queue_for(self._app, envelope.queue)
        priority = _priority(envelope)

        async def start_with(client: Client, attributes: TypedSearchAttributes | None) -> Accepted:
            handle = await client.start_workflow(
                contract.WORKFLOW,
                job.to_json(),
                id=envelope.id,
                task_queue=task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                memo={contract.MESSAGE_MEMO: message},
                priority=priority,
                search_attributes=attributes,
                static_summary=contract.cut_name(envelope.task),
            )
            return _accepted(envelope, handle.first_execution_run_id)

        async def start(client: Client) -> Accepted:
            attributes = await search_attributes.attributes_of(client, envelope)
            try:
                return await start_with(client, attributes)
            except RPCError as error:
                if attributes is None or error.status is not RPCStatusCode.INVALID_ARGUMENT:
                    raise
                search_attributes.forget(client)  # they may have been taken away
                return await start_with(client, None)

        async def start_light(client: Client) -> Accepted:
            order = ExecuteOrder(job=job, message=message)
            run_id = await light.start(client, envelope, order, task_queue=task_queue, priority=priority)
            if run_id is None:  # the server has none
                return await start(client)
            return _accepted(envelope, run_id, external_id=external_id_of(envelope.id))

        return start_light if is_light(envelope.headers) else start

    def _same_delivery(self, envelope: Envelope) -> Accepted | None:
        """Whether the workflow that runs is the one of this very message."""
        known_as = [external_id_of(envelope.id)] if is_light(envelope.headers) else []
        for external_id in [*known_as, envelope.id]:
            running = self._describe(external_id)
            if running is not None and running[0] == envelope.delivery:
                return _accepted(envelope, running[1], external_id=external_id)
        return None

    def _describe(self, external_id: str) -> tuple[str | None, str | None] | None:
        """Give delivery and run of what runs by that id."""
        if activity_id := activity_id_in(external_id):
            return self._found(lambda client: light.running(client, activity_id))
        workflow_id = external_id

        async def describe(client: Client) -> tuple[str | None, str | None] | None:
            description = await client.get_workflow_handle(workflow_id).describe()
            if description.status is not WorkflowExecutionStatus.RUNNING:
                return None
            message = await if_readable(description.memo_value(contract.MESSAGE_MEMO, default={})) or {}
            return message.get("delivery"), description.run_id

        return self._found(describe)

    def _signal(self, workflow_id: str, name: str, document: dict[str, Any]) -> bool:
        """Signal a workflow; False: none of that id runs."""

        async def signal(client: Client) -> bool:
            await client.get_workflow_handle(workflow_id).signal(name, document)
            return True

        return self._found(signal) or False

    def _found(self, work: Callable[[Client], Awaitable[Answer]]) -> Answer | None:
        """Do `work`; None: there is no such workflow."""
        try:
            answer: Answer = self._call(work)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return None
            raise _refused(error) from error
        return answer

    def _call(self, work: Any, timeout: timedelta | None = None) -> Any:
        try:
            answer = self.client.call(work, timeout=timeout)
        except TimeoutError as error:
            self.client.note_failure("Temporal did not answer in time.")
            raise unavailable("Temporal did not answer in time.", certainly_not_started=False) from error
        except RPCError as error:
            if is_unreachable(error):
                if error.status in _SILENT:
                    self.client.note_failure(f"Temporal: {error.message}")
                # The request may have arrived, and only its answer been lost.
                raise unavailable(f"Temporal: {error.message}", certainly_not_started=False) from error
            raise
        self.client.note_failure(None)
        return answer

    def _external_id(self, task_id: str) -> str:
        # A foreign client may have started the job's workflow under another id.
        row = self._app.jobs.find(job_id_for(task_id))
        return row.external_id if row is not None and row.external_id else task_id


def _priority(envelope: Envelope) -> Priority:
    is_short = len(envelope.tenant.encode()) <= _FAIRNESS_KEY_LIMIT
    return Priority(
        priority_key=temporal_priority(envelope.priority),
        fairness_key=envelope.tenant if is_short else None,
    )


def _accepted(envelope: Envelope, run_id: str | None, *, external_id: str | None = None) -> Accepted:
    return Accepted(
        key=JobKey(tenant=TenantId(envelope.tenant), job_id=job_id_for(envelope.id)),
        delivery=UUID(envelope.delivery),
        engine=Engine.TEMPORAL,
        external_id=external_id or envelope.id,
        external_run_id=run_id,
        is_alone=True,
    )


def _refused(error: RPCError) -> EngineUnavailable:
    return unavailable(
        f"Temporal refused the request: {error.message}",
        certainly_not_started=True,
        hint="Check TEMPORAL_NAMESPACE, TEMPORAL_API_KEY and the TLS settings, then run `jobbridge doctor`.",
    )
