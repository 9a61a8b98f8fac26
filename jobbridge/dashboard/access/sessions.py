"""Cookies of a signed-in person, and the proof that a form came from our own page. Pure: keys and time are passed in.

A session is signed with the hash of its token, which each request reads anyway: it needs no secret of its own, all
processes agree on it, and it ends with the token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

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


def make_cookie(token_id: UUID, key: bytes, *, now: datetime, nonce: bytes) -> str:
    """Make the cookie of a session that begins now.

    Args:
        key: The token's hash.
        nonce: 16 random bytes.
    """
    payload = _LAYOUT.pack(token_id.bytes, int((now + LIFETIME).timestamp()), nonce)
    return base64.urlsafe_b64encode(payload + _sign(key, b"session", payload)).decode()


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


def verify(session: Session, key: bytes, *, now: datetime) -> bool:
    """Tell whether the session is signed with the key, and not over."""
    return now < session.ends_at and hmac.compare_digest(
        session.signature, _sign(key, b"session", session.payload)
    )


def form_token(key: bytes, nonce: bytes) -> str:
    """Make what a form of this session carries."""
    return _sign(key, b"form", nonce).hex()


def _sign(key: bytes, purpose: bytes, message: bytes) -> bytes:
    return hmac.digest(key, purpose + b"\0" + message, "sha256")
