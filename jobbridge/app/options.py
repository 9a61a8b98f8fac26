"""What `apply_async` takes beyond Celery's own options, and what came of a message."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from celery.utils.functional import maybe_list

from jobbridge.core.durable import Suspension
from jobbridge.core.enqueue import SINGLETON_KEY_LIMIT, Outcome, SingletonPolicy
from jobbridge.core.envelope import TRACE
from jobbridge.core.keys import Engine, JobKey, TenantId
from jobbridge.core.tenant_names import tenant_named
from jobbridge.errors import UnsupportedOption
from jobbridge.store.batches.progress import BATCH

#: Celery's header, and in a row's metadata: that nobody is to be told of its state and result.
IGNORE_RESULT = "ignore_result"
#: In a row's metadata: the message's stamps, each with a list of its values.
STAMPS = "celery_stamps"
#: What a row's metadata has from the message, and not from who sends it.
_OF_MESSAGE = frozenset({"data", "argsrepr", "kwargsrepr", TRACE, IGNORE_RESULT, STAMPS, BATCH})


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions:
    """What `apply_async` takes beyond Celery's own options.

    Attributes:
        engine: This one, whatever the task and the settings say.
        default_engine: This one, unless the task says otherwise.
        singleton_key: At most one job of the tenant that has not ended has this key.
        singleton_policy: What to do when another one has it; `skip` by default.
        may_fall_back: False: it waits for its engine, whatever the settings say.
        continues: The attempt after which the job goes on by this message, sent by its last child.
        suspension: The job that runs is suspended, and goes on by this message.
        track: False: a message and no row, as with plain Celery; None: as its task says.
        temporal_light: On Temporal it runs as an activity, without a workflow; None: as its task says.
        concurrency, rate_limit: Its rules across the fleet (`core.rules.limits`); None: as its task says; False: none.
        unique, throttle, debounce: What makes it superfluous (`core.rules.unique`); likewise.
    """

    engine: Engine | None = None
    default_engine: Engine | None = None
    tenant: TenantId | None = None
    user_id: uuid.UUID | None = None
    job_metadata: dict[str, Any] | None = None
    singleton_key: str | None = None
    singleton_policy: SingletonPolicy | None = None
    may_fall_back: bool | None = None
    continues: int | None = None
    suspension: Suspension | None = None
    track: bool | None = None
    temporal_light: bool | None = None
    concurrency: Any = None
    rate_limit: Any = None
    unique: Any = None
    throttle: Any = None
    debounce: Any = None

    @classmethod
    def take_from(cls, options: dict[str, Any]) -> JobOptions:
        """Remove them from Celery's options and check them.

        Raises:
            UnsupportedOption: A value does not fit.
        """
        if options.keys().isdisjoint(_NAMES):
            return _NONE
        taken = {name: options.pop(name, None) for name in _NAMES}
        for name in ("engine", "default_engine"):
            if taken[name] is not None:
                taken[name] = engine_named(taken[name])
        if taken["user_id"] is not None:
            taken["user_id"] = user_id_of(taken["user_id"])
        if taken["tenant"] is not None:
            taken["tenant"] = tenant_named(str(taken["tenant"]))
        if taken["singleton_policy"] is not None:
            taken["singleton_policy"] = policy_named(taken["singleton_policy"])
        check_singleton(taken["singleton_key"], taken["singleton_policy"])
        return cls(**taken)

    @staticmethod
    def names() -> frozenset[str]:
        """Give the names of all."""
        return _NAMES

    @property
    def former_trace(self) -> str | None:
        """The trace of the job whose metadata was handed on, if this one is that job sent again."""
        return (self.job_metadata or {}).get(TRACE)

    def metadata_of(self, headers: Mapping[str, Any], task: Any) -> dict[str, Any]:
        """Give the metadata of the row but for the arguments: whether its result is ignored, its trace and stamps."""
        own = {name: value for name, value in (self.job_metadata or {}).items() if name not in _OF_MESSAGE}
        tells_errors = getattr(task, "store_errors_even_if_ignored", False)  # and revokes, as Celery has it
        told = {
            TRACE: headers.get(TRACE),
            IGNORE_RESULT: headers.get(IGNORE_RESULT) and not tells_errors,
            STAMPS: stamps_of(headers),
            BATCH: headers.get(BATCH),
        }
        return own | {name: value for name, value in told.items() if value}


_NAMES = frozenset(field.name for field in fields(JobOptions))
_NONE = JobOptions()


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """What came of sending a job.

    Attributes:
        key: The job that there is now: the new one, or the one that made it superfluous.
        external_id: How its engine knows it.
    """

    outcome: Outcome
    key: JobKey
    task_id: str
    external_id: str


def stamps_of(headers: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Give the stamps of a message, each with a list of its values: whoever stamped may have written one alone."""
    stamps = headers.get("stamps") or {}
    told = {name: maybe_list(stamps.get(name)) for name in headers.get("stamped_headers") or ()}
    return {name: list(values) for name, values in told.items() if values}


def engine_named(name: Engine | str) -> Engine:
    """Read the name of an engine.

    Raises:
        UnsupportedOption: There is none of that name.
    """
    try:
        return Engine.parse(str(name))
    except ValueError:
        raise _unknown("engine", name, "celery, temporal") from None


def policy_named(name: SingletonPolicy | str) -> SingletonPolicy:
    """Read the name of a singleton policy.

    Raises:
        UnsupportedOption: There is none of that name.
    """
    try:
        return SingletonPolicy(str(name))
    except ValueError:
        raise _unknown("singleton_policy", name, ", ".join(SingletonPolicy)) from None


def user_id_of(value: uuid.UUID | str) -> uuid.UUID:
    """Read the id of a user.

    Raises:
        UnsupportedOption: It is no uuid.
    """
    try:
        return uuid.UUID(str(value))
    except ValueError:
        raise UnsupportedOption(f"user_id is {value!r}, which is no uuid.", hint="Pass a uuid.") from None


def check_singleton(key: object, policy: SingletonPolicy | None) -> None:
    """Refuse what cannot be a singleton key.

    Raises:
        UnsupportedOption: It is no text of 1 to 255 characters, or there is a policy and no key.
    """
    if key is None:
        if policy is not None:
            raise UnsupportedOption(
                f"singleton_policy is {policy.value!r}, and there is no singleton_key.",
                hint="Pass singleton_key=... with it.",
            )
        return
    if not isinstance(key, str) or not 1 <= len(key) <= SINGLETON_KEY_LIMIT or "\x00" in key:
        raise UnsupportedOption(
            f"singleton_key is {str(key)[:60]!r}.",
            hint=f"Pass text of 1 to {SINGLETON_KEY_LIMIT} characters without NUL.",
        )


def _unknown(option: str, value: object, known: str) -> UnsupportedOption:
    return UnsupportedOption(f"{option} is {str(value)!r}, which there is not.", hint=f"Use one of: {known}.")
