"""Sealing: AES-256-GCM, in one form for bytes, text and JSON.

    bytes   jb1:<key id>:<12 bytes nonce><ciphertext and tag>
    text    jb1:<key id>:<the same in base64>
    JSON    {"$encrypted": "<text>"}

What a value is sealed for (its job and field) is authenticated with it, and so is the id of the key: what was sealed
for one place does not open in another.

Source: NIST SP 800-38D; a random nonce of 96 bits is good for 2³² values of one key, so rotate before that.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import re
from typing import TYPE_CHECKING, Any

from jobbridge.codec.keys import KeyRing
from jobbridge.errors import ConfigurationError, EncryptionError, EncryptionKeyMissing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

Json = Any  # what json.loads returns

MARK = "$encrypted"
_HEAD = re.compile(rb"jb1:([A-Za-z0-9_.-]{1,32}):")
_TEXT = re.compile(r"jb1:([A-Za-z0-9_.-]{1,32}):([A-Za-z0-9+/]+={0,2})")
_NONCE = 12
#: What neither Postgres nor UTF-8 can hold.
_UNSTORABLE = re.compile("[\ud800-\udfff]")


class Codec:
    """Seals with the first key of a ring, and opens with any of them.

    Args:
        ring: Without keys nothing is sealed, and what is sealed cannot be opened.
    """

    def __init__(self, ring: KeyRing | None = None) -> None:
        self._ring = ring or KeyRing()
        self._ciphers: dict[str, AESGCM] = {}

    @classmethod
    def of(cls, text: str | None) -> Codec:
        """Make one of the setting's text; None: without keys.

        Raises:
            ConfigurationError: There are keys that cannot be used, or the extra is not installed.
        """
        if text is None:
            return cls()
        codec = cls(KeyRing.parse(text))
        codec._cipher(codec._writing)
        return codec

    def __bool__(self) -> bool:
        return self._ring.writing is not None

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Of the keys that it has, the one that writes first."""
        return tuple(self._ring.keys)

    # -- bytes

    def seal(self, data: bytes, place: str, *, is_stable: bool = False) -> bytes:
        """Seal bytes for a place.

        Args:
            data: Any.
            place: Where alone it can be opened: job and field.
            is_stable: The same data becomes the same by the same key, which shows that it is the same.
        """
        head = f"jb1:{self._writing}:".encode()
        nonce = self._nonce_of(place, data) if is_stable else os.urandom(_NONCE)
        sealed = self._cipher(self._writing).encrypt(nonce, data, head + place.encode())
        return head + nonce + sealed

    def open(self, sealed: bytes, place: str) -> bytes:
        """Open what was sealed for a place.

        Raises:
            EncryptionKeyMissing: Its key is not here.
            EncryptionError: It is not sealed, was altered, or was sealed for another place.
        """
        from cryptography.exceptions import InvalidTag

        name = key_of(sealed)
        if name is None:
            raise EncryptionError("There is nothing that was encrypted by this release.")
        head = f"jb1:{name}:".encode()
        start = len(head) + _NONCE
        try:
            return self._cipher(name).decrypt(
                bytes(sealed[len(head) : start]), bytes(sealed[start:]), head + place.encode()
            )
        except (InvalidTag, ValueError):
            raise EncryptionError(
                f"What is encrypted by the key {name!r} cannot be opened: it was altered, or belongs to another place "
                f"than {place!r}, or another key has that id."
            ) from None

    # -- text and JSON

    def seal_text(self, text: str, place: str, *, is_stable: bool = False) -> str:
        """Seal text, as text; what is sealed stays as it is."""
        if _TEXT.fullmatch(text):
            return text
        sealed = self.seal(text.encode("utf-8", "surrogatepass"), place, is_stable=is_stable)
        start = len(f"jb1:{self._writing}:")
        return sealed[:start].decode() + base64.b64encode(sealed[start:]).decode()

    def open_text(self, text: str, place: str) -> str:
        """Open text; what is not sealed stays as it is.

        Raises:
            EncryptionKeyMissing, EncryptionError: As `open`.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            return text
        try:
            sealed = f"jb1:{found[1]}:".encode() + base64.b64decode(found[2], validate=True)
        except binascii.Error:
            raise EncryptionError(f"What is encrypted for {place!r} is no base64.") from None
        return self.open(sealed, place).decode("utf-8", "surrogatepass")

    def seal_json(self, value: Json, place: str, *, is_exact: bool = False, is_stable: bool = False) -> Json:
        """Seal a JSON value; what is sealed stays as it is.

        Args:
            value: What is no JSON inside it becomes text.
            place: As `seal`.
            is_exact: What UTF-8 cannot hold is kept all the same.
            is_stable: As `seal`.
        """
        if sealed_text(value) is not None:
            return value
        text = json.dumps(value, default=str, separators=(",", ":"), ensure_ascii=is_exact)
        kept = text if is_exact else _UNSTORABLE.sub("\ufffd", text)
        return {MARK: self.seal_text(kept, place, is_stable=is_stable)}

    def open_json(self, value: Json, place: str, *, is_exact: bool = False) -> Json:
        """Open a JSON value; what is not sealed stays as it is.

        Args:
            value: As `seal_json` gives it.
            place: As `seal`.
            is_exact: As it was sealed; else what is infinite, or no number, becomes text, as pages can show it.

        Raises:
            EncryptionKeyMissing, EncryptionError: As `open`.
        """
        text = sealed_text(value)
        return (
            value
            if text is None
            else json.loads(self.open_text(text, place), parse_constant=float if is_exact else str)
        )

    # -- keys

    @property
    def _writing(self) -> str:
        name = self._ring.writing
        if name is None:
            raise ConfigurationError(
                "There is no key to encrypt with.", hint="Set JOBBRIDGE_ENCRYPTION_KEYS."
            )
        return name

    def _nonce_of(self, place: str, data: bytes) -> bytes:
        # Another place or other data has another nonce, as a random one would be.
        key = hashlib.sha256(b"jobbridge nonce" + self._ring.keys[self._writing]).digest()
        told = len(place).to_bytes(8, "big") + place.encode() + data
        return hmac.digest(key, told, "sha256")[:_NONCE]

    def _cipher(self, name: str) -> AESGCM:
        if name not in self._ciphers:
            key = self._ring.keys.get(name)
            if key is None:
                raise EncryptionKeyMissing.named(name, known=self.key_ids)
            try:
                from cryptography.hazmat.primitives.ciphers.aead import AESGCM
            except ImportError as error:
                raise ConfigurationError(
                    "JOBBRIDGE_ENCRYPTION_KEYS is set, and `cryptography` is not installed.",
                    hint="Install it with `pip install 'jobbridge[encryption]'`.",
                ) from error
            self._ciphers[name] = AESGCM(key)
        return self._ciphers[name]


#: Without keys: what most installations have.
PLAIN = Codec()


def key_of(sealed: bytes) -> str | None:
    """Give the id of the key by which bytes are sealed; None: they are not."""
    found = _HEAD.match(sealed)
    return None if found is None else found[1].decode()


def sealed_text(value: Json) -> str | None:
    """Give the text of a JSON value that is sealed; None: it is not."""
    text = value.get(MARK) if isinstance(value, dict) and len(value) == 1 else None
    return text if isinstance(text, str) and _TEXT.fullmatch(text) else None
