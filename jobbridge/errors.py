"""Every error of JobBridge, and what to do about each.

JobBridgeError                  everything below; `hint` says what to do
├── ConfigurationError          a setting is missing, wrong, or contradicts another
├── DatabaseError
│   ├── DatabaseUnavailable     Postgres cannot be reached; safe to retry
│   │   └── DatabaseRefused     it answers, and will not have us: waiting does not help
│   ├── NotMigrated             the tables are missing, or older than this release works on
│   ├── SchemaTooNew            a later release changed the tables: they no longer serve this one
│   ├── WorkersOfOlderReleases  a migration would end the service of workers that run
│   └── WorkersRun              tables cannot go down beneath workers that run
├── BrokerError                 see jobbridge.broker, which is a leaf and derives its own
├── EngineUnavailable           Temporal cannot be reached, or its extra is not installed
├── HandlerError
│   ├── UnknownHandler          no handler of that name; suggests the nearest
│   ├── DuplicateHandler        two handlers of one name; names both places
│   └── InvalidJobData          the data does not fit the handler's model
├── TenantRequired              the handler needs a tenant and none was given
├── JobNotFound                 no such job for that tenant
├── ScheduleNotFound            no such schedule, or several tenants have one
├── BatchNotFound               no batch of that id
├── BatchEnded                  the batch has ended, or was cancelled, and takes no more jobs
├── ChildrenFailed              of a job's children not all completed
├── HandlerChanged              a handler made other durable calls than it recorded
├── CalledJobEnded              a called job was cancelled, expired, skipped, or is gone
├── NoCurrentJob                no job runs here
├── DuplicateJob                another job holds the singleton key
├── TokenRefused                a token cannot be made, or is of no use
├── JobCancelled                raised inside a handler whose job was cancelled
├── EncryptionError             what is encrypted was altered, or stands in another place
│   └── EncryptionKeyMissing    it was encrypted by a key that is not here
├── PayloadTooLarge             a message or a result is larger than JOB_RUNNER_PAYLOAD_LIMIT_MB
└── UnsupportedOption           an engine cannot honour what was asked
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self


class JobBridgeError(Exception):
    """Base of all errors raised on purpose.

    Every subclass can be made of its message alone: that is how a result backend that speaks JSON restores an error
    (celery 5.7, backends/base.py, `exception_to_python`). What else shapes the message has a constructor with a name.

    Args:
        message: What is wrong, with the value that is wrong.
        hint: What to do, in the imperative.
    """

    hint: str = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint or type(self).hint
        if self.hint:
            self.add_note(f"Hint: {self.hint}")  # where a traceback is all that is shown

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (pool child to parent, result backend); keyword-only
        # arguments of a subclass would break unpickling, so the state travels apart.
        return (_rebuild, (type(self), self.args), self.__dict__)


def _rebuild(cls: type[JobBridgeError], args: tuple[object, ...]) -> JobBridgeError:
    error = cls.__new__(cls)
    error.args = args
    return error


class ConfigurationError(JobBridgeError):
    """A setting is missing, wrong, or contradicts another."""

    hint = "Run `jobbridge doctor` to see every setting and where it came from."


class DatabaseError(JobBridgeError):
    """The job tables cannot be used."""


class DatabaseUnavailable(DatabaseError):
    """Postgres cannot be reached. Safe to retry."""

    hint = "Check that Postgres runs and that DATABASE_URL points at it, then run `jobbridge doctor`."


class DatabaseRefused(DatabaseUnavailable):
    """Postgres answers, and will not have us, or is not what we can use: waiting does not help."""

    hint = "Correct DATABASE_URL, then run `jobbridge doctor`."


class NotMigrated(DatabaseError):
    """The tables are missing, or older than this release works on."""

    hint = "Run `jobbridge migrate`."


class SchemaTooNew(DatabaseError):
    """A later release has changed the tables so that they no longer serve this one."""

    hint = "Upgrade this installation of jobbridge; it must not write to tables that it does not know."


class WorkersOfOlderReleases(DatabaseError):
    """A migration would end the service of workers that run now."""

    hint = "Upgrade or stop them first; or migrate with --force: they take nothing more from then on, and say so."


class WorkersRun(DatabaseError):
    """The tables of workers that run now would be taken down."""

    hint = "Stop them first; or use --force: they take nothing more from then on, and say so."


class EngineUnavailable(JobBridgeError):
    """Temporal cannot be reached, or its extra is not installed."""

    hint = "Check TEMPORAL_ADDRESS and that the server runs, then run `jobbridge doctor`."

    #: False: no answer came, so the job may run there all the same.
    certainly_not_started: bool = True


class HandlerError(JobBridgeError):
    """A handler cannot be used as asked."""


class UnknownHandler(HandlerError):
    """No handler is registered under that name."""

    hint = "Check the name, or import the module that declares it where the app is made."

    @classmethod
    def named(cls, name: str, *, suggestion: str | None = None) -> Self:
        did_you_mean = f" Did you mean {suggestion!r}?" if suggestion else ""
        return cls(f"No handler is registered under {name!r}.{did_you_mean}")


class DuplicateHandler(HandlerError):
    """Two handlers claim one name."""

    hint = "Rename one of them, or pass force=True to replace the first."

    @classmethod
    def named(cls, name: str, first: str, second: str) -> Self:
        return cls(f"Handler {name!r} is declared twice: in {first} and in {second}.")


class InvalidJobData(HandlerError):
    """The data does not fit the handler's model."""

    hint = "Correct the data and send it again."

    @classmethod
    def of(cls, name: str, problems: str) -> Self:
        return cls(f"The data for {name!r} is not valid: {problems}")


class TenantRequired(JobBridgeError):
    """The handler needs a tenant and none was given."""

    hint = "Pass tenant=..., or put 'tenantId' in the data."

    @classmethod
    def by(cls, name: str) -> Self:
        return cls(f"Handler {name!r} needs a tenant, and none was given.")


class JobNotFound(JobBridgeError):
    """No such job for that tenant."""

    hint = "List jobs with `jobbridge jobs list`."

    @classmethod
    def with_id(cls, job_id: str) -> Self:
        return cls(f"There is no job {job_id}.")


class CannotRetry(JobBridgeError):
    """A job is not in a state in which it can be run again."""

    hint = "Look at it with `jobbridge jobs show`."


class RanAgain(CannotRetry):
    """It ended later than those that are to be sent again."""


class StillRunning(JobBridgeError):
    """A job has not ended within the time that was given."""

    hint = "Wait longer, or ask `jobbridge explain` what it waits for."


class BatchNotFound(JobBridgeError):
    """There is no batch of that id."""

    hint = "See `jobbridge batches list`."

    @classmethod
    def with_id(cls, batch_id: str) -> Self:
        return cls(f"There is no batch {batch_id!r}.")


class BatchEnded(JobBridgeError):
    """The batch has ended, or was cancelled, and takes no more jobs."""

    hint = "Make a new one: with jobbridge.batch(...)."


class ChildrenFailed(JobBridgeError):
    """Of a job's children not all completed; its metadata says how many."""

    hint = "Look at the children, then run those again with `jobbridge jobs retry PARENT --failed`."


class HandlerChanged(JobBridgeError):
    """A handler made another durable call than the recorded ones that it did not make yet."""

    hint = (
        "Put the new call behind `if ctx.version(name, 1):`, or have the names follow from data and recorded values; "
        "then run the job again with `jobbridge jobs retry`."
    )

    @classmethod
    def by(cls, name: str, call: str, untaken: Sequence[str]) -> Self:
        """Say which call is new, and which were recorded."""
        known = ", ".join(untaken[:5]) + (" …" if len(untaken) > 5 else "")
        return cls(
            f"{name} calls {call}, where {known} was recorded: it has changed, or does not do the same twice."
        )


class CalledJobEnded(JobBridgeError):
    """A job that `ctx.call` or `ctx.gather` waited for did not run to its end."""

    hint = "See why with `jobbridge jobs show`."


class NoCurrentJob(JobBridgeError):
    """There is no job in whose place this could be done."""

    hint = "Call it from a task of the app while a worker runs it."


class ScheduleNotFound(JobBridgeError):
    """There is no such schedule, or several tenants have one."""

    hint = "List schedules with `jobbridge schedules list`."

    @classmethod
    def named(cls, schedule: str) -> Self:
        return cls(f"There is no schedule {schedule!r}.")


class DuplicateJob(JobBridgeError):
    """Another job holds the singleton key, and the policy says `raise`."""

    hint = "Wait until that job has ended or cancel it, or use the policy 'skip' or 'replace'."

    @classmethod
    def of(cls, singleton_key: str, *, job_id: str, status: str) -> Self:
        state = "cancelled, and still stops its work" if status == "cancelled" else status
        return cls(f"The singleton key {singleton_key!r} is held by job {job_id}, which is {state}.")


class TokenRefused(JobBridgeError):
    """A token cannot be made as asked, or is of no use."""

    hint = "List tokens with `jobbridge tokens list`."


class JobCancelled(JobBridgeError):
    """Raised inside a handler whose job was cancelled: let it pass, or clean up and raise it again."""


class EncryptionError(JobBridgeError):
    """What is encrypted was altered, or stands in another place than it was encrypted for."""

    hint = "Whoever wrote it knows; restore it from a backup, or send the job again."


class EncryptionKeyMissing(EncryptionError):
    """What is encrypted was encrypted by a key that is not here."""

    hint = "Add that key to JOBBRIDGE_ENCRYPTION_KEYS, behind the first one, which writes; then try again."

    @classmethod
    def named(cls, key_id: str, *, known: Sequence[str] = ()) -> Self:
        have = ", ".join(map(repr, known)) or "none"
        return cls(f"It is encrypted by the key {key_id!r}, and the keys here are: {have}.")


class PayloadTooLarge(JobBridgeError):
    """A message or a result is larger than the setting allows: nothing of it was stored.

    Attributes:
        size: In bytes, as it would have been stored.
        limit: In bytes.
    """

    hint = (
        "Keep the content elsewhere (a file, a bucket, a table) and send where it is; "
        "or raise JOB_RUNNER_PAYLOAD_LIMIT_MB for senders and workers."
    )
    size: int = 0
    limit: int = 0

    @classmethod
    def of(cls, what: str, *, size: int, limit: int) -> Self:
        error = cls(
            f"{what} is {megabytes(size)} MB, and JOB_RUNNER_PAYLOAD_LIMIT_MB allows {megabytes(limit)} MB."
        )
        error.size, error.limit = size, limit
        return error


class UnsupportedOption(JobBridgeError):
    """An engine cannot honour what was asked."""


def megabytes(size: int) -> str:
    """Say a number of bytes in megabytes."""
    return f"{size / 1_000_000:,.3f}".rstrip("0").rstrip(".")
