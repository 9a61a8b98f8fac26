"""Links by which somebody without an account answers what a job waits for. Pure: keys and time are passed in.

All that a link says is in it, signed with a secret that the database does not hold. So nobody can make one of what a
database, a backup or another link tells; and one that is sent costs no row until it is answered.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from jobbridge.core.keys import JobKey, TenantId
from jobbridge.core.signed.signing_keys import SigningKeys

#: What somebody may answer when nothing else is said.
CHOICES = ("approve", "decline")
#: How long a link is good when nothing else is said.
LASTS = timedelta(days=7)
_PURPOSE = b"event link"
_SIGNATURE_SIZE = 32
#: Characters; a longer address is cut by some mail programs.
LONGEST = 2000


@dataclass(frozen=True, kw_only=True, slots=True)
class EventLink:
    """What a link is for.

    Attributes:
        link_id: Of this link alone: the event that it sends is sent once.
        key: The job that waits.
        name: Of the event.
        choices: What can be answered.
        ends_at: An aware instant; it is of no use from then on.
    """

    link_id: UUID
    key: JobKey
    name: str
    choices: tuple[str, ...]
    ends_at: datetime

    @property
    def once(self) -> str:
        """By what two answers to this link are known to be of one question."""
        return f"link {self.link_id}"


def written(link: EventLink, keys: SigningKeys) -> str:
    """Write a link as a part of an address."""
    told: list[Any] = [
        link.link_id.hex,
        link.key.tenant,
        link.key.job_id.hex,
        link.name,
        list(link.choices),
        int(link.ends_at.timestamp()),
    ]
    payload = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(keys.sign(_PURPOSE, payload) + payload).decode().rstrip("=")


def read(text: str, keys: SigningKeys, *, now: datetime) -> EventLink | None:
    """Read a link; None: it was altered or made up, is signed by a key that is none of these, or its time is over."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    signature, payload = raw[:_SIGNATURE_SIZE], raw[_SIGNATURE_SIZE:]
    if not keys.is_signed(_PURPOSE, payload, signature):
        return None
    link_id, tenant, job_id, name, choices, ends_at = json.loads(payload)  # ours: it is signed
    link = EventLink(
        link_id=UUID(hex=link_id),
        key=JobKey(tenant=TenantId(tenant), job_id=UUID(hex=job_id)),
        name=name,
        choices=tuple(choices),
        ends_at=datetime.fromtimestamp(ends_at, UTC),
    )
    return link if now < link.ends_at else None


def form_tokens(text: str, keys: SigningKeys) -> Sequence[str]:
    """Give what the form on a link's page may carry; what one that is made now carries is first."""
    return [signature.hex() for signature in keys.signatures(b"event form", text.encode())]
