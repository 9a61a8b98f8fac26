"""What names a job."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

TenantId = NewType("TenantId", str)

#: Whose jobs are nobody's: they belong to the system.
SYSTEM_TENANT = TenantId("00000000-0000-0000-0000-000000000000")

_TASK_ID_NAMESPACE = uuid.UUID("6f1c53f2-5c0b-5a55-9a05-4b1f3f0f6d0b")


class Engine(StrEnum):
    """Who runs a job; the column `runner_type`."""

    CELERY = "celery"
    TEMPORAL = "temporal"

    @classmethod
    def parse(cls, text: str) -> Engine:
        """Read a setting or an old row; `pgboss` is the original's name for the community engine.

        Raises:
            ValueError: No engine has that name.
        """
        name = text.strip().lower()
        return cls.CELERY if name == "pgboss" else cls(name)

    @classmethod
    def named_by(cls, task: object) -> Engine | None:
        """Give the engine that a task's author chose; what else a task may call its engine (a database's) is none.

        Raises:
            ValueError: No engine has that name.
        """
        told = getattr(task, "engine", None)
        return cls.parse(told) if isinstance(told, str) and told else None


@dataclass(frozen=True, kw_only=True, slots=True)
class JobKey:
    """The primary key of `jobs`."""

    tenant: TenantId
    job_id: uuid.UUID


def job_id_for(task_id: str | uuid.UUID) -> uuid.UUID:
    """Give the job id of a Celery task id: the same uuid, however it is spelt; or one derived from it if it is none."""
    if isinstance(task_id, uuid.UUID):
        return task_id
    try:
        return uuid.UUID(task_id)
    except ValueError:
        return uuid.uuid5(_TASK_ID_NAMESPACE, task_id)
