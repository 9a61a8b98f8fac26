"""What `apply_async` takes beyond Celery's own options."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, fields
from typing import Any

from jobbridge.core.keys import Engine, TenantId
from jobbridge.errors import UnsupportedOption


@dataclass(frozen=True, kw_only=True, slots=True)
class JobOptions:
    """The options of one job."""

    engine: Engine | None = None
    tenant: TenantId | None = None
    user_id: uuid.UUID | None = None
    job_metadata: dict[str, Any] | None = None

    @classmethod
    def take_from(cls, options: dict[str, Any]) -> JobOptions:
        """Remove them from Celery's options and check them.

        Raises:
            UnsupportedOption: A value does not fit.
        """
        taken = {field.name: options.pop(field.name, None) for field in fields(cls)}
        try:
            if taken["engine"] is not None:
                taken["engine"] = Engine.parse(str(taken["engine"]))
            if taken["user_id"] is not None:
                taken["user_id"] = uuid.UUID(str(taken["user_id"]))
        except ValueError as error:
            raise UnsupportedOption(
                f"{error}.", hint="engine is 'celery' or 'temporal'; user_id is a uuid."
            ) from None
        if taken["tenant"] is not None:
            taken["tenant"] = TenantId(str(taken["tenant"]))
        return cls(**taken)
