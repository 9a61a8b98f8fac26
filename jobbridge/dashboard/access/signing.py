"""What cookies and forms are signed with: a secret that the database does not hold.

Whoever may read the database (a replica, a backup, a role for reports) must not be able to make a session of what it
reads. So the key comes from the settings, which all processes that serve the dashboard share. Without one, a process
makes its own when it starts: then sessions end with it, and no other process knows them.
"""

from __future__ import annotations

import functools
import logging
import secrets
from typing import TYPE_CHECKING

from jobbridge.core.signed.signing_keys import SigningKeys

if TYPE_CHECKING:
    from jobbridge.settings import Settings

logger = logging.getLogger(__name__)

#: What is said where no key is set.
NO_KEY = (
    "JOBBRIDGE_SECRET_KEY is not set, so sessions end when this process does, and no other process that serves the "
    "dashboard knows them."
)


def keys_of(settings: Settings) -> SigningKeys:
    """Give those of the settings, or of this process.

    Raises:
        ConfigurationError: One is too short, or the file cannot be read.
    """
    keys = settings.secret_keys()
    return SigningKeys([key.encode() for key in keys]) if keys else of_this_process()


@functools.cache
def of_this_process() -> SigningKeys:
    """Make keys that nobody else knows; processes that are forked later share them."""
    logger.warning("dashboard.no_secret_key: %s Set it to 32 random characters or more.", NO_KEY)
    return SigningKeys([secrets.token_bytes(32)])
