"""Who may do what: roles, and whom a request comes from."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from jobbridge.core.keys import TenantId


class Role(StrEnum):
    """What somebody may do; each may do what those before may.

    Attributes:
        VIEWER: Look.
        OPERATOR: Send, cancel and retry jobs; pause, run and change schedules and queues.
        ADMIN: Suspend and purge tenants, clear history, make tokens.
    """

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, kw_only=True, slots=True)
class Principal:
    """Whom a request comes from.

    Attributes:
        name: Of the token, or of whom a trusted proxy names; for the audit.
        tenant: The only one there is for them; None: all.
        token_id: None: no token, but a proxy or the loopback interface.
    """

    name: str
    role: Role
    tenant: TenantId | None = None
    token_id: UUID | None = None

    def sees(self, tenant: TenantId) -> bool:
        return self.tenant is None or self.tenant == tenant

    def may(self, role: Role) -> bool:
        return self.role.includes(role)
