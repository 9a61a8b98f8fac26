"""What cookies and forms are signed with: a secret that the database does not hold.

Whoever may read the database (a replica, a backup, a role for reports) must not be able to make a session of what it
reads. So the key comes from the settings, which all processes that serve the dashboard share. Without one, a process
makes its own when it starts: then sessions end with it, and no other process knows them.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import logging
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobbridge.settings import Settings

logger = logging.getLogger(__name__)

#: What is said where no key is set.
NO_KEY = (
    "JOBBRIDGE_SECRET_KEY is not set, so sessions end when this process does, and no other process that serves the "
    "dashboard knows them."
)


class SigningKeys:
    """Keys by their age: the first one signs, all are good.

    Args:
        keys: At least one. To change it, put the new one first, and take the old one away when the sessions that it
            signed are over.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(hashlib.sha256(key).digest() for key in keys)

    @classmethod
    def of(cls, settings: Settings) -> SigningKeys:
        """Give those of the settings, or of this process.

        Raises:
            ConfigurationError: One is too short, or the file cannot be read.
        """
        keys = settings.secret_keys()
        return cls([key.encode() for key in keys]) if keys else of_this_process()

    def signatures(self, purpose: bytes, message: bytes) -> tuple[bytes, ...]:
        """Give all good signatures of a message; the first one is for what is made now."""
        return tuple(hmac.digest(key, purpose + b"\0" + message, "sha256") for key in self._keys)

    def sign(self, purpose: bytes, message: bytes) -> bytes:
        """Sign a message; a signature for one purpose is none for another."""
        return self.signatures(purpose, message)[0]

    def is_signed(self, purpose: bytes, message: bytes, signature: bytes) -> bool:
        """Tell whether one of the keys made the signature."""
        return any(hmac.compare_digest(signature, each) for each in self.signatures(purpose, message))


@functools.cache
def of_this_process() -> SigningKeys:
    """Make keys that nobody else knows; processes that are forked later share them."""
    logger.warning("dashboard.no_secret_key: %s Set it to 32 random characters or more.", NO_KEY)
    return SigningKeys([secrets.token_bytes(32)])
