"""From a Celery message to a job: row and message together.

What if the process dies between two steps?

* CE, broker and tables in one database: row and message are one statement (with an exchange that may lead to several
  queues, with a singleton key, or after falling back: one transaction). Nothing is between them.
* CE, another broker (Redis, RabbitMQ, the stock SQL one): the row is committed as `pending`, then the message sent
  (what is large stays in the row: `message.reference`). Death between: a `pending` row and no message, as it shows.
* EE: the row holds the message and is committed as `pending`; then the workflow is started, then the row
  says `queued`. Death before the start: the relay starts it. Death after: the relay starts it again, under the same
  workflow id, which Temporal refuses while it runs; when it has closed, the claim of the row refuses the attempt.
* EE, and Temporal cannot be reached: one transaction moves the row on to a new delivery and stores its message in the
  broker. Death before: the row is `pending`, and the relay delivers it. After: it is a job of the broker. Should
  Temporal have it all the same (a relay elsewhere was as fast), its delivery is the old one, and does not start.
* A retry or `replace` from inside a running attempt: the same transaction moves the row on to the new delivery. An old
  message that comes back (the worker died before its ack) holds the old delivery and does not start.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from jobbridge.app.execute.claim import current_run, in_pool_child
from jobbridge.app.execute.tenancy import inherited_tenant
from jobbridge.app.execute.together import patiently
from jobbridge.app.options import JobOptions, Sent
from jobbridge.app.publish.delivery import address, chosen_light, log_duplicate, log_fallback, note_fallback
from jobbridge.app.publish.direct import over_kombu, publish_on
from jobbridge.app.publish.message.continuing import continuation_of, held
from jobbridge.app.publish.message.envelope import make_envelope
from jobbridge.app.publish.message.reference import LIMIT, as_sent
from jobbridge.app.publish.message.size import check_body, check_stored
from jobbridge.app.publish.message.submitted import submitted_of
from jobbridge.app.publish.repeating import repeating
from jobbridge.app.publish.rules.debounce import within_longest
from jobbridge.app.publish.rules.job_holds import JobHolds, holds_of
from jobbridge.app.publish.rules.unique import unique_by
from jobbridge.app.publish.singletons import claim_of
from jobbridge.app.routing import queue_to_send_to, with_queue
from jobbridge.broker import publishing_by, publishing_on
from jobbridge.core.chords import REPLACES
from jobbridge.core.enqueue import Outcome
from jobbridge.core.envelope import Envelope
from jobbridge.core.events import Accepted, Failed, FellBack, Submitted
from jobbridge.core.keys import SYSTEM_TENANT, Engine, JobKey, TenantId, job_id_for
from jobbridge.core.status import JobStatus
from jobbridge.errors import DatabaseError, EngineUnavailable, UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.broker import Parcel
    from jobbridge.postgres.caller_connection import DriverConnection

logger = logging.getLogger(__name__)


class JobPublication:
    """One task message on its way to its engine."""

    def __init__(
        self,
        app: Celery,
        producer: Any,
        name: str,
        options: JobOptions,
        tenant: TenantId | None,
        body: Any,
        publish_options: dict[str, Any],
        queue: Any = None,
    ) -> None:
        self._app = app
        self._producer = producer
        self._name = name
        self._options = options
        self._body = body
        self._publish_options = publish_options
        self._headers: dict[str, Any] = publish_options["headers"]
        self._task_id = str(self._headers["id"])
        self._task = app._tasks.get(name)
        self._delivery = uuid.uuid4()
        self._parent_run = current_run(app)
        is_own = self._parent_run is not None and self._parent_run.task_id == self._task_id
        self._own_run = self._parent_run if is_own else None
        self._engine = self._chosen_engine()
        self._queue_name = queue_to_send_to(app, publish_options, self._engine, chosen=queue, goes_on=is_own)
        self._is_light = chosen_light(app, self._task, options, self._engine, is_own=is_own)
        self._unique = None
        if self._is_first:
            self._unique, self._options = unique_by(app, self._task, name, options, body, self._headers)
        self._key = JobKey(tenant=self._chosen_tenant(tenant), job_id=job_id_for(self._task_id))
        self._options = within_longest(app, self._unique, self._key, self._options, self._headers)
        self._claim = claim_of(app, self._key, self._options, self._unique, is_first=self._own_run is None)
        self._holds = self._holds_now()
        self._trouble: EngineUnavailable | None = None  #: Why it does not go to the engine that was chosen.
        self.sent: Sent | None = None  #: What came of it; None until it is sent.
        self.stored: tuple[Submitted, Parcel] | None = None  #: What was stored in one statement, if it was.
        self._external_id = self._address()

    def send(self) -> Any:
        result = self._send()
        if self._headers.get(REPLACES) == self._task_id:
            self._app.chords.close_replaced(self._task_id)
        if self._claim is not None and self._app.caller_connection is None and not in_pool_child():
            self._claim.tell_engine()
        return result

    def _send(self) -> Any:
        if self._engine is Engine.TEMPORAL:
            return self._send_to_temporal()
        if self._app.shares_database_with_broker:
            return self._send_with_row()
        return self._send_to_other_broker()

    def _address(self) -> str:
        """Write into the message whose job it is, and by which delivery; gives how its engine will know it."""
        told = {"tenant": self._key.tenant, "delivery": str(self._delivery), "engine": self._engine.value}
        if self._queue_name != self._publish_options.get("routing_key"):
            told["queue"] = self._queue_name  # what it is taken from knows the routing key only
        is_light = self._is_light and self._engine is Engine.TEMPORAL  # it may have fallen back since
        return address(self._headers, told, self._task_id, is_light=is_light)

    # -- deciding

    def _chosen_engine(self) -> Engine:
        if self._options.engine is not None:
            return self._options.engine
        if self._own_run is not None:
            return self._own_run.engine  # a retry stays where it runs
        return Engine.named_by(self._task) or self._options.default_engine or self._app.default_engine

    def _chosen_tenant(self, tenant: TenantId | None) -> TenantId:
        parent = self._parent_run
        return tenant or (parent.key.tenant if parent else inherited_tenant()) or SYSTEM_TENANT

    @property
    def _is_first(self) -> bool:
        return self._own_run is None and self._options.continues is None

    def _holds_now(self) -> JobHolds:
        """Give what is to hold it; what goes on by this message has passed its rules."""
        if not self._is_first:
            return JobHolds()
        task = (self._app, self._task, self._name, self._options)
        return holds_of(*task, self._key, self._task_id, self._queue_name, self._body, self._publish_options)

    def _submitted(self, status: JobStatus, message: Any = None, **more: Any) -> Submitted:
        return submitted_of(
            self._task,
            self._body,
            self._publish_options,
            self._options,
            type=self._name,
            key=self._key,
            task_id=self._task_id,
            engine=self._engine,
            delivery=self._delivery,
            queue=self._queue_name,
            status=status,
            continues=continuation_of(self._options, self._own_run, self._headers),
            external_id=self._external_id,
            message=message,
            **more,
        )

    # -- the broker

    def _send_with_row(self) -> Any:
        return self._repeating(self._write_row_and_message)

    def _repeating(self, write: Callable[[Any], Any]) -> Any:
        """Write, and try again as the publish policy says while Postgres is away; a job's own next attempt waits."""
        caller = self._app.caller_connection
        if caller is None and self._own_run is not None:
            return patiently(lambda _: write(None), event="Submitted", job_id=self._task_id)
        return repeating(write, caller, self._publish_options)

    def _write_row_and_message(self, caller: Any) -> Any:
        if self._publish_options.get("exchange") or self._claim is not None or self._trouble or self._holds:
            return self._write_row_then_message(caller)
        if caller is None:
            self._app.database.check()  # the broker, which declares its queue first, would say it in its own words
        connection = None if caller is None else self._app.database.on(caller)
        submitted = self._submitted(JobStatus.QUEUED)

        def write(parcel: Parcel) -> bool:
            check_stored(self._app, self._name, parcel.parameters)
            self.stored = (submitted, parcel)
            return not self._waits_in_bulk(submitted, parcel) and self._record(submitted, connection, parcel)

        direct = self._app.amqp.direct
        with ExitStack() as stack:
            if connection is not None:  # its consumers notice a silent message only after a while
                stack.enter_context(publishing_on(connection))
            if self._producer is None and direct.leads_to(self._publish_options):
                return direct.send(self._body, self._publish_options, write)
            stack.enter_context(publishing_by(write))
            return self._publish()

    def _waits_in_bulk(self, submitted: Submitted, parcel: Parcel | None = None) -> bool:
        bulk = self._app.open_bulk
        if bulk is None or self._holds or not bulk.takes(submitted):
            return False
        bulk.add(submitted, parcel, self._repeating)
        self._note_sent(Outcome.CREATED, self._key, self._task_id, self._external_id)
        return True

    def _write_row_then_message(self, caller: Any) -> Any:
        with self._app.database.transaction(caller) as connection:
            if not self._record(self._submitted(JobStatus.QUEUED), connection):
                return None
            if self._trouble is not None:
                note_fallback(connection, self._key, self._trouble)
            return self._holds.publish(
                connection, lambda: self._publish_on(connection, is_brief=caller is None)
            )

    def _publish_on(self, connection: DriverConnection, *, is_brief: bool) -> Any:
        return publish_on(connection, self._publish, self._publish_options, is_brief=is_brief)

    def _publish(self) -> Any:
        options = {**self._publish_options, "retry": False, "headers": dict(self._headers)}
        options["declare"] = with_queue(self._app, options, self._queue_name)
        return over_kombu(self._app, self._producer, self._body, options)

    def _record(
        self, submitted: Submitted, connection: DriverConnection | None, parcel: Parcel | None = None
    ) -> bool:
        """Make the job's row, with the message in `parcel`, unless there is a job already; whether there is a new one.

        Raises:
            DuplicateJob: Another job has its singleton key.
        """
        if self._claim is not None and connection is not None:
            holder = self._claim.find_holder(connection)
            if holder is not None:
                external_id = holder.external_id or holder.task_id
                self._note_sent(Outcome.DEDUPLICATED, holder.key, holder.task_id, external_id)
                log_duplicate(self._key, f"job {holder.key.job_id} has the singleton key")
                return False
        recorded = self._app.recorder.record(submitted, connection, parcel=parcel)
        went_unseen = recorded.outcome == "repeated" or (recorded.applied and recorded.outcome is None)
        if not recorded.applied and not went_unseen:
            self._note_sent(Outcome.DEDUPLICATED, self._key, self._task_id, self._external_id)
            log_duplicate(self._key, recorded.reason)
            return False
        if self._own_run is not None and (
            recorded.outcome == "continued" or (went_unseen and submitted.continues is not None)
        ):
            self._own_run.continued = True
        if not recorded.applied:  # the commit of the first try went through unseen, and the message with it
            if self.sent is None:
                self._note_sent(Outcome.CREATED, self._key, self._task_id, self._external_id)
            return False
        if self._claim is not None and connection is not None:
            self._claim.settle(connection)
        if self._holds and connection is not None:
            self._holds.write(connection, is_new=recorded.outcome == "created")
        is_replacing = self._claim is not None and self._claim.replaced is not None
        self._note_sent(
            Outcome.REPLACED if is_replacing else Outcome.CREATED, self._key, self._task_id, self._external_id
        )
        return True

    def _note_sent(self, outcome: Outcome, key: JobKey, task_id: str, external_id: str) -> None:
        self.sent = Sent(outcome=outcome, key=key, task_id=task_id, external_id=external_id)

    def _send_to_other_broker(self) -> Any:
        if self._app.caller_connection is not None:
            raise UnsupportedOption(
                "The broker is not in the database of the caller's transaction, so it cannot be part of it.",
                hint="Use a jobbridge+postgresql:// broker on the same database.",
            )
        if self._holds:
            raise UnsupportedOption(
                f"{self._name!r} has rules across the fleet, and its broker is not in the database of the jobs.",
                hint="Use a jobbridge+postgresql:// broker on the same database.",
            )
        is_large = check_body(self._app, self._body, self._publish_options) > LIMIT
        in_row = self._envelope().to_json() if is_large else None
        submitted = self._submitted(JobStatus.PENDING, in_row, broker=self._app.broker_scheme)
        if not self._repeating(lambda caller: self._write_row(submitted, caller)):
            return None
        try:
            body, options = as_sent(self._app, self._body, self._publish_options, is_in_row=is_large)
            result = self._producer.publish(body, **options)
        except Exception as error:
            why = f"Could not be sent: {error!r}"
            failed = Failed(key=self._key, attempt=None, error=why, delivery=self._delivery)
            self._app.recorder.record(failed)
            raise
        accepted = Accepted(
            key=self._key, delivery=self._delivery, engine=self._engine, external_id=self._task_id
        )
        try:
            self._app.recorder.record(accepted)
        except DatabaseError as error:  # its start says so, too
            told = {"job_id": self._task_id, "error": str(error)}
            logger.warning("job.acceptance_not_recorded", extra=told)
        return result

    # -- Temporal

    def _send_to_temporal(self) -> Any:
        delivery = self._app.delivery(Engine.TEMPORAL)  # before anything is written: its extra may be missing
        continues = self._own_run is not None and self._own_run.engine is Engine.TEMPORAL
        bulk = self._app.open_bulk
        is_others = self._app.caller_connection is not None or in_pool_child()
        if not continues:
            delivery.prepare(asks=not is_others and not (bulk and bulk.is_asked_for))
        trouble = None if continues else delivery.known_failure()
        if trouble is not None and self._may_fall_back:
            return self._send_to_broker_instead(trouble)
        envelope = self._envelope()
        is_relayed = is_others or trouble is not None or bool(self._holds)
        status = JobStatus.QUEUED if continues else JobStatus.PENDING
        is_told = is_relayed and not continues and not self._holds
        submitted = self._submitted(status, envelope.to_json(), is_relayed=is_told)
        if bulk is not None and (is_relayed or bulk.reaches(delivery)) and self._waits_in_bulk(submitted):
            return None
        if not self._repeating(lambda caller: self._write_row(submitted, caller)) or continues or is_relayed:
            return None  # the running workflow, or the relay, takes it from the row
        # From here on the job is there, and whoever sends it must not take it for unsent.
        try:
            accepted = delivery.deliver(envelope)
        except EngineUnavailable as error:
            if error.certainly_not_started and self._may_fall_back:
                return self._fall_back(error)
            logger.warning("job.waits_for_temporal", extra={"job_id": self._task_id, "error": str(error)})
            return None
        except Exception as error:
            logger.exception("job.waits_for_temporal", extra={"job_id": self._task_id, "error": repr(error)})
            return None
        delivery.accept(accepted)
        return None

    def _write_row(self, submitted: Submitted, caller: Any) -> bool:
        if self._claim is None and not self._holds:
            return self._record(submitted, None if caller is None else self._app.database.on(caller))
        with self._app.database.transaction(caller) as connection:
            return self._record(submitted, connection)

    # -- falling back

    @property
    def _may_fall_back(self) -> bool:
        wanted = self._app.settings.fallback_to_celery and self._options.may_fall_back is not False
        return wanted and self._app.shares_database_with_broker  # another one has no part in the transaction

    def _send_to_broker_instead(self, trouble: EngineUnavailable) -> Any:
        """Send it to the broker at once: that Temporal is away is known, so it was not even asked."""
        self._trouble, self._engine = trouble, Engine.CELERY
        self._external_id = self._address()
        result = self._send_with_row()
        if self.sent is not None and self.sent.outcome is not Outcome.DEDUPLICATED:
            log_fallback(self._task_id, self._name, trouble)
        return result

    def _fall_back(self, trouble: EngineUnavailable) -> Any:
        """Give a job that Temporal certainly did not start to the broker; if that fails, the relay has it."""
        former, self._delivery, self._engine = self._delivery, uuid.uuid4(), Engine.CELERY
        self._address()
        fell_back = FellBack(
            key=self._key, delivery=former, new_delivery=self._delivery, engine=Engine.CELERY
        )
        try:
            with self._app.database.transaction() as connection:
                if not self._app.recorder.record(fell_back, connection).applied:
                    return None  # a relay elsewhere was faster, or it was cancelled
                note_fallback(connection, self._key, trouble)
                result = self._publish_on(connection, is_brief=True)
        # The row is safe; whatever a transport raises must not make the caller send again.
        except Exception as error:
            logger.warning("job.waits_for_temporal", extra={"job_id": self._task_id, "error": str(error)})
            return None
        log_fallback(self._task_id, self._name, trouble)
        return result

    def _envelope(self) -> Envelope:
        envelope = make_envelope(
            self._app,
            self._task,
            self._name,
            key=self._key,
            delivery=self._delivery,
            queue=self._queue_name,
            body=self._body,
            publish_options=self._publish_options,
        )
        return held(envelope, self._options)
