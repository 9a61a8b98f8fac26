"""A job that wants a singleton key, within the transaction that makes it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from kombu.exceptions import OperationalError

from jobbridge.broker import delete_waiting
from jobbridge.core.enqueue import SingletonPolicy
from jobbridge.core.events import Cancelled
from jobbridge.core.keys import Engine, JobKey
from jobbridge.core.status import WAITING
from jobbridge.errors import DuplicateJob, JobBridgeError, UnsupportedOption
from jobbridge.store.jobs import singletons
from jobbridge.store.jobs.singletons import Hold, Holder

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.options import JobOptions
    from jobbridge.core.rules.unique import UniqueRule
    from jobbridge.postgres.caller_connection import DriverConnection

logger = logging.getLogger(__name__)


class SingletonClaim:
    """One job's claim to a key: `find_holder`, then the job's row, then `settle`; and `tell_engine` after the commit.

    Args:
        app: Whose tables.
        job: The job that wants the key.
        key: The singleton key.
        policy: What to do when another job has it.
        unique: What made the key, if the caller did not give it.
    """

    def __init__(
        self, app: Celery, job: JobKey, key: str, policy: SingletonPolicy, unique: UniqueRule | None = None
    ) -> None:
        self._app = app
        self._job = job
        self._key = key
        self._policy = policy
        self._while_waiting = unique is not None and unique.while_waiting
        self._period = None if unique is None else unique.period
        self._hold: Hold | None = None
        self.replaced: Holder | None = None

    def find_holder(self, connection: DriverConnection) -> Holder | None:
        """Lock the key and give the job that keeps this one from being made, if any.

        Raises:
            DuplicateJob: There is one, and the policy is `raise`.
        """
        replaces = self._policy is SingletonPolicy.REPLACE
        self.replaced = None
        self._hold = singletons.hold(
            connection,
            self._job,
            self._key,
            replaces=replaces,
            while_waiting=self._while_waiting,
            period=self._period,
        )
        holder = self._hold.holder
        if holder is None:
            return None
        if self._policy is SingletonPolicy.RAISE:
            raise DuplicateJob.of(self._key, job_id=str(holder.key.job_id), status=holder.status.value)
        if replaces and holder.status in WAITING:
            return None  # it has not begun, and never will
        return holder

    def settle(self, connection: DriverConnection) -> None:
        """Make the key this job's own, and cancel the one that it replaces."""
        assert self._hold is not None  # find_holder comes first
        if not self._hold.is_new:
            singletons.take(connection, self._job, self._key)
        if self._period is not None:
            singletons.keep(connection, self._job, self._key, self._period)
        if self._hold.holder is not None:
            self._cancel(connection, self._hold.holder)
            self.replaced = self._hold.holder

    def tell_engine(self) -> None:
        """Stop what was replaced where only a message can; what is not reached is refused by its row when it starts."""
        holder = self.replaced
        if holder is None:
            return
        try:
            if holder.runner_type is Engine.TEMPORAL:
                delivery = self._app.delivery(Engine.TEMPORAL)
                if delivery.known_failure() is None:
                    delivery.cancel(holder.task_id, reason=self._reason, cancelled_by="singleton")
            elif not self._app.shares_database_with_broker:
                self._app.control.revoke(holder.task_id)
        except (JobBridgeError, OperationalError) as error:
            logger.warning("job.cancel_not_delivered", extra={"job_id": holder.task_id, "error": str(error)})

    def _cancel(self, connection: DriverConnection, holder: Holder) -> None:
        self._app.recorder.record(
            Cancelled(key=holder.key, reason=self._reason, cancelled_by="singleton"), connection
        )
        if holder.runner_type is Engine.CELERY and self._app.shares_database_with_broker:
            delete_waiting(connection, holder.task_id)

    @property
    def _reason(self) -> str:
        return f"Replaced by job {self._job.job_id}."


def claim_of(
    app: Celery, job: JobKey, options: JobOptions, unique: UniqueRule | None, *, is_first: bool
) -> SingletonClaim | None:
    """Give the job's claim to the key that it is sent with; None: it has none.

    Args:
        app: Whose tables.
        job: The job.
        options: It is sent with.
        unique: What made the key, if the caller did not give it.
        is_first: It does not go on by this message.

    Raises:
        UnsupportedOption: It goes on, and may have a key already.
    """
    key = options.singleton_key
    if key is None:
        return None
    if not is_first:
        raise UnsupportedOption(
            f"Job {job.job_id} goes on by this message, and cannot take the singleton_key {key!r} now.",
            hint="Give the key when the job is sent for the first time.",
        )
    return SingletonClaim(app, job, key, options.singleton_policy or SingletonPolicy.SKIP, unique)
