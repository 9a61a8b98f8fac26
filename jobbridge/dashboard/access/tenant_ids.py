"""What a tenant can be called here: any text in a fresh database, a uuid in one that was adopted."""

from __future__ import annotations

from typing import LiteralString
from uuid import UUID

from jobbridge.core.keys import TenantId
from jobbridge.store.database import Database

#: Stands for a tenant that there cannot be: nothing is found of it, and nothing is refused by Postgres.
NOBODY = TenantId("ffffffff-ffff-4fff-bfff-ffffffffffff")

_TYPE: LiteralString = """
SELECT format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = 'public.jobs'::regclass AND attname = 'tenant'
"""


class TenantIds:
    """Tells what can be a tenant.

    Args:
        database: Whose type of the column `tenant` says so; asked once.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._are_uuids: bool | None = None

    def known(self, tenant: str) -> TenantId:
        """Give a tenant that can be asked for: this one, or nobody."""
        return self.written(tenant) or NOBODY

    def written(self, tenant: str) -> TenantId | None:
        """Write a tenant as its rows have it; None: there can be none of that name.

        Python reads uuids that Postgres does not (`urn:uuid:…`), and both read some that no row has (capital letters).
        """
        if self._are_uuids is None:
            row = self._database.run(lambda own: own.execute(_TYPE).fetchone())
            self._are_uuids = row is not None and row[0] == "uuid"
        if not self._are_uuids:
            return TenantId(tenant)
        try:
            return TenantId(str(UUID(tenant)))
        except ValueError:
            return None
