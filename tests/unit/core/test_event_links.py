"""A link says what it is for, and only who has the key can make one."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from jobbridge.core.keys import JobKey, TenantId
from jobbridge.core.signed import event_links
from jobbridge.core.signed.event_links import EventLink
from jobbridge.core.signed.signing_keys import SigningKeys

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
KEYS = SigningKeys([b"newest", b"older"])
LINK = EventLink(
    link_id=UUID(int=1),
    key=JobKey(tenant=TenantId("Müller & Söhne"), job_id=UUID(int=2)),
    name="approval",
    choices=("approve", "decline"),
    ends_at=NOW + timedelta(hours=1),
)


def test_a_link_says_what_it_is_for() -> None:
    text = event_links.written(LINK, KEYS)

    assert event_links.read(text, KEYS, now=NOW) == LINK
    assert event_links.read(text, KEYS, now=LINK.ends_at) is None


def test_a_key_that_was_replaced_is_good_until_it_is_taken_away() -> None:
    text = event_links.written(LINK, SigningKeys([b"older"]))

    assert event_links.read(text, KEYS, now=NOW) == LINK
    assert event_links.read(text, SigningKeys([b"newest"]), now=NOW) is None


@pytest.mark.parametrize("place", [0, 40, -3])
def test_one_that_was_altered_is_none(place: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(event_links.written(LINK, KEYS) + "=="))
    raw[place] ^= 1

    assert event_links.read(base64.urlsafe_b64encode(raw).decode(), KEYS, now=NOW) is None


@pytest.mark.parametrize("text", ["", "x", "äöü", "=", "A" * 44, "\0"])
def test_what_is_no_link_is_none(text: str) -> None:
    assert event_links.read(text, KEYS, now=NOW) is None


def test_what_was_signed_for_another_purpose_is_no_link() -> None:
    payload = base64.urlsafe_b64decode(event_links.written(LINK, KEYS) + "==")[32:]
    forged = base64.urlsafe_b64encode(KEYS.sign(b"session", payload) + payload).decode()

    assert event_links.read(forged, KEYS, now=NOW) is None
