"""Names for `pg_stat_activity`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobbridge.postgres import names


@pytest.fixture(autouse=True)
def _nobody() -> Iterator[None]:
    before = names._who
    names.identify("")
    yield
    names.identify(before)


def test_a_process_without_a_name_says_what_the_connection_is_for() -> None:
    assert names.application_name("jobs") == "jobbridge jobs"


def test_a_worker_is_named() -> None:
    names.identify("worker w1@host")

    assert names.application_name("broker") == "jobbridge worker w1@host broker"
    assert names.application_name("broker", product="books") == "books worker w1@host broker"


def test_a_long_name_loses_its_middle_and_not_its_purpose() -> None:
    names.identify("worker " + "ü" * 80)

    name = names.application_name("presence")

    assert len(name.encode()) == names.MOST_BYTES
    assert name.startswith("jobbridge worker ??")
    assert name.endswith("~ presence")
