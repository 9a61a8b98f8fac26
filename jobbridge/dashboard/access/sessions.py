"""Cookies of a signed-in person, and the proof that a form came from our own page. Pure: keys and time are passed in.

A session is signed with a secret that is not in the database, together with the hash of its token, which each request
reads anyway: who has only one of the two makes no session, and it ends with the token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from jobbridge.core.signed.signing_keys import SigningKeys

LIFETIME = timedelta(hours=12)

_LAYOUT = struct.Struct(">16sQ16s")  # token id, end as a Unix time, nonce
_SIGNATURE_SIZE = hashlib.sha256().digest_size


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """What a cookie says; not to be believed before `verify`."""

    token_id: UUID
    ends_at: datetime
    nonce: bytes
    signature: bytes

    @property
    def payload(self) -> bytes:
        return _LAYOUT.pack(self.token_id.bytes, int(self.ends_at.timestamp()), self.nonce)


def make_cookie(token_id: UUID, token_hash: bytes, keys: SigningKeys, *, now: datetime, nonce: bytes) -> str:
    """Make the cookie of a session that begins now.

    Args:
        token_id: Whose session.
        token_hash: That token's.
        keys: The first one signs.
        now: When it begins.
        nonce: 16 random bytes.
    """
    payload = _LAYOUT.pack(token_id.bytes, int((now + LIFETIME).timestamp()), nonce)
    return base64.urlsafe_b64encode(payload + keys.sign(b"session", token_hash + payload)).decode()


def read_cookie(cookie: str) -> Session | None:
    """Read a cookie; None: it is none of ours."""
    try:
        raw = base64.b64decode(cookie, altchars=b"-_", validate=True)
        if len(raw) != _LAYOUT.size + _SIGNATURE_SIZE:
            return None
        token_id, ends_at, nonce = _LAYOUT.unpack(raw[: _LAYOUT.size])
        return Session(
            token_id=UUID(bytes=token_id),
            ends_at=datetime.fromtimestamp(ends_at, UTC),
            nonce=nonce,
            signature=raw[_LAYOUT.size :],
        )
    except (binascii.Error, ValueError, OverflowError, OSError):
        return None


def verify(session: Session, token_hash: bytes, keys: SigningKeys, *, now: datetime) -> bool:
    """Tell whether the session is one of that token, signed with one of the keys, and not over."""
    signed = token_hash + session.payload
    return keys.is_signed(b"session", signed, session.signature) and now < session.ends_at


def form_tokens(keys: SigningKeys, whose: bytes) -> tuple[str, ...]:
    """Give what a form of this session may carry; what one that is made now carries is first."""
    return tuple(signature.hex() for signature in keys.signatures(b"form", whose))
