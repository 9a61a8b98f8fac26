"""What the data of every job of the pack has in common."""

from __future__ import annotations

from datetime import date

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class JobData(BaseModel):
    """Base of job data: `client_id` and `clientId` are the same; a misspelt field is an error."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    tenant_id: str | None = None


class DailyJob(JobData):
    """What is done for one tenant on a day: `as_of`, by default the day that it is at the tenant's."""

    as_of: date | None = None
