"""Which fire of which schedule a workflow carries, in the forms that Temporal is given.

Imports nothing but the standard library: the workflow reads it, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

#: As in jobbridge.core.schedules.policies, which may not be imported here; a test holds the two together.
_FIRE_NAMESPACE = UUID("5d0f6a0e-8f57-5f4b-9d7b-0d8f3c7e2b64")

#: Search attributes of jobs (`search_attributes`): a Schedule gives its workflows the first, they add the others.
TENANT_ATTRIBUTE = "JobbridgeTenant"
JOB_ID_ATTRIBUTE = "JobbridgeJobId"
ROOT_ID_ATTRIBUTE = "JobbridgeRootId"


@dataclass(frozen=True, kw_only=True, slots=True)
class Fire:
    """Which fire of which schedule a workflow carries.

    Attributes:
        fire_at: Its nominal instant, ISO 8601.
        kind: With `spec` and `zone`: when the schedule fires, as far as Temporal was told.
    """

    schedule_id: str
    tenant_id: str
    fire_at: str
    version: int
    kind: str
    spec: str
    zone: str

    @property
    def instant(self) -> datetime:
        return datetime.fromisoformat(self.fire_at)

    @property
    def job_id(self) -> str:
        """The id of the job that this fire makes, whoever fires it."""
        instant = self.instant.astimezone(UTC).isoformat(timespec="microseconds")
        return str(uuid5(_FIRE_NAMESPACE, f"{self.tenant_id}\n{self.schedule_id}\n{instant}"))

    def to_json(self) -> dict[str, Any]:
        return {**self.memo(), "fireAt": self.fire_at}

    def memo(self) -> dict[str, Any]:
        """Give what is known before it fires."""
        return {
            "scheduleId": self.schedule_id,
            "tenantId": self.tenant_id,
            "version": self.version,
            "kind": self.kind,
            "spec": self.spec,
            "zone": self.zone,
        }

    @classmethod
    def from_json(cls, document: Any, *, fire_at: str | None = None) -> Fire:
        return cls(
            schedule_id=str(document["scheduleId"]),
            tenant_id=str(document["tenantId"]),
            fire_at=fire_at or str(document["fireAt"]),
            version=int(document["version"]),
            kind=str(document["kind"]),
            spec=str(document["spec"]),
            zone=str(document["zone"]),
        )
