"""The keys: `id:base64,id:base64`; the first one writes, all of them read."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobbridge.errors import ConfigurationError

#: Bytes of a key: AES-256.
SIZE = 32
_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_HINT = 'Write "id:key,…", the one that writes first; `jobbridge keys new ID` makes one.'


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys by their ids, in their order.

    Attributes:
        keys: Empty: nothing is encrypted.
    """

    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    @property
    def writing(self) -> str | None:
        """The id of the key that writes."""
        return next(iter(self.keys), None)

    @classmethod
    def parse(cls, text: str) -> KeyRing:
        """Read the setting; keys are parted by commas, blanks or line ends.

        Raises:
            ConfigurationError: One is no key, or two have one id; it shows ids, and no key.
        """
        keys: dict[str, bytes] = {}
        for number, each in enumerate(re.split(r"[\s,]+", text.strip()), start=1):
            name, parted, encoded = each.partition(":")
            if not parted or _ID.fullmatch(name) is None:
                raise ConfigurationError(
                    f"JOBBRIDGE_ENCRYPTION_KEYS: key {number} has no id of 1 to 32 letters, digits, '_', '.' or '-'.",
                    hint=_HINT,
                )
            if name in keys:
                raise ConfigurationError(f"JOBBRIDGE_ENCRYPTION_KEYS has two keys {name!r}.", hint=_HINT)
            keys[name] = _decoded(name, encoded)
        return cls(keys)


def _decoded(name: str, encoded: str) -> bytes:
    standard = encoded.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        key = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != SIZE:
        raise ConfigurationError(
            f"JOBBRIDGE_ENCRYPTION_KEYS: key {name!r} is not {SIZE} bytes in base64.", hint=_HINT
        )
    return key
