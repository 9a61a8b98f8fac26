"""What a fire of Temporal is: whose job it makes, and when it is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobbridge.core.keys import TenantId
from jobbridge.core.schedules.policies import Trigger, fire_job_id
from jobbridge.core.schedules.specs import Cron, Every
from jobbridge.temporal.schedules.fires import triggered_by
from jobbridge.temporal.wire.contract import ExecuteOrder, JobInput
from jobbridge.temporal.wire.fire import Fire

SCHEDULE = "5b0f2c1e-0000-4000-8000-000000000001"


def told(
    fire_at: datetime, *, spec: str = "30 1 * * *", zone: str = "Europe/Dublin", version: int = 1
) -> Fire:
    return Fire(
        schedule_id=SCHEDULE,
        tenant_id="acme",
        fire_at=fire_at.isoformat(),
        version=version,
        kind="cron",
        spec=spec,
        zone=zone,
    )


@given(tenant=st.text(min_size=1), instant=st.datetimes(timezones=st.just(UTC)), hours=st.integers(-12, 12))
def test_the_contract_and_the_core_make_the_same_id(tenant: str, instant: datetime, hours: int) -> None:
    from datetime import timezone

    instant = instant.replace(
        year=2000 + instant.year % 99, day=min(instant.day, 28)
    )  # not each has a 29 February
    elsewhere = instant.astimezone(timezone(timedelta(hours=hours)))
    fire = Fire(
        schedule_id=SCHEDULE,
        tenant_id=tenant,
        fire_at=elsewhere.isoformat(),
        version=1,
        kind="cron",
        spec="",
        zone="",
    )

    assert fire.job_id == str(fire_job_id(TenantId(tenant), UUID(SCHEDULE), instant))


def test_an_order_carries_its_fire_over_the_wire() -> None:
    fire = told(datetime(2026, 6, 1, 0, 30, tzinfo=UTC))
    job = JobInput(job_id=fire.job_id, job_name="x", tenant_id="acme")
    order = ExecuteOrder(job=job, fire=fire)

    assert ExecuteOrder.from_json(order.to_json(), workflow_id="w") == order


@pytest.mark.parametrize(
    ("fire_at", "is_told", "expected"),
    [
        (datetime(2026, 6, 1, 0, 30, tzinfo=UTC), "30 1 * * *", Trigger.SCHEDULE),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), "30 1 * * *", Trigger.SCHEDULE),
        # The clock shows 01:30 a second time.
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "30 1 * * *", "the clock was changed, and"),
        (datetime(2026, 6, 1, 12, 0, 7, tzinfo=UTC), "30 1 * * *", Trigger.MANUAL),
        (datetime(2026, 10, 25, 1, 30, 7, tzinfo=UTC), "30 1 * * *", Trigger.MANUAL),
        # Temporal has not heard yet.
        (datetime(2026, 6, 1, 4, 0, tzinfo=UTC), "0 5 * * *", "the schedule has changed since"),
    ],
)
def test_a_fire_is_told_from_what_is_none(fire_at: datetime, is_told: str, expected: Trigger | str) -> None:
    fire = told(fire_at, spec=is_told, version=1 if is_told == "30 1 * * *" else 0)
    found = triggered_by(Cron.parse("30 1 * * *"), ZoneInfo("Europe/Dublin"), fire_at, fire, version=1)

    assert found == expected if isinstance(expected, Trigger) else str(found).startswith(expected)


def test_an_interval_fires_at_its_multiples() -> None:
    every = Every.parse("15 minutes")
    due, other = datetime(2026, 6, 1, 12, 15, tzinfo=UTC), datetime(2026, 6, 1, 12, 16, 1, tzinfo=UTC)

    assert triggered_by(every, ZoneInfo("UTC"), due, told(due), version=1) is Trigger.SCHEDULE
    assert triggered_by(every, ZoneInfo("UTC"), other, told(other), version=1) is Trigger.MANUAL
