"""Signatures with keys that are replaced now and then. Pure: the keys are passed in."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence


class SigningKeys:
    """Keys by their age: the first one signs, all are good.

    Args:
        keys: At least one. To change it, put the new one first, and take the old one away when what it signed is over.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(hashlib.sha256(key).digest() for key in keys)

    def signatures(self, purpose: bytes, message: bytes) -> tuple[bytes, ...]:
        """Give all good signatures of a message; the first one is for what is made now."""
        return tuple(hmac.digest(key, purpose + b"\0" + message, "sha256") for key in self._keys)

    def sign(self, purpose: bytes, message: bytes) -> bytes:
        """Sign a message; a signature for one purpose is none for another."""
        return self.signatures(purpose, message)[0]

    def is_signed(self, purpose: bytes, message: bytes, signature: bytes) -> bool:
        """Tell whether one of the keys made the signature."""
        return any(hmac.compare_digest(signature, each) for each in self.signatures(purpose, message))
