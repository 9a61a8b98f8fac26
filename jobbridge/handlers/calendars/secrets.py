"""Secrets: read from files when they are used, kept out of rows, logs and errors.

A provider's row has the name of a secret only. The file `NAME.json` in CALENDAR_SECRETS_DIR is what Docker and
Kubernetes mount; it is read anew for each run, so a secret that was replaced is used at once.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from pathlib import Path

from jobbridge.handlers.calendars.errors import SecretUnusable

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_SHORTEST = 4  # characters; to blank out less would blank out half of a text


class Secret:
    """The fields of one secret. Its `repr` tells its name only."""

    def __init__(self, name: str, fields: Mapping[str, str]) -> None:
        self.name = name
        self._fields = dict(fields)
        self._known = {value for field, value in fields.items() if field != "client_id"}

    @classmethod
    def read(cls, folder: Path | None, name: str) -> Secret:
        """Read a secret.

        Raises:
            SecretUnusable: There is no such file, or it is not what it should be.
        """
        if folder is None:
            raise SecretUnusable.about(name, "CALENDAR_SECRETS_DIR is not set")
        if not _NAME.fullmatch(name):
            raise SecretUnusable.about(name, "letters, digits, '-', '_' and '.' make a name")
        try:
            fields = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise SecretUnusable.about(name, error.strerror or type(error).__name__) from None
        except ValueError:  # its message would show what stands there
            raise SecretUnusable.about(name, "its file is not JSON") from None
        if not isinstance(fields, dict) or not all(isinstance(value, str) for value in fields.values()):
            raise SecretUnusable.about(name, "its file is not an object of strings")
        return cls(name, fields)

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"

    def __getitem__(self, field: str) -> str:
        value = self._fields.get(field)
        if not value:
            raise SecretUnusable.about(self.name, f"it has no {field!r}")
        return value

    def webhook_token(self, provider_id: str) -> str:
        """Give what the provider is to send with each notification, so that we know that it is from there.

        Derived, so that it need not be kept anywhere.
        """
        token = hmac.new(self["client_secret"].encode(), provider_id.encode(), hashlib.sha256).hexdigest()
        self._known.add(token)
        return token

    def also(self, value: str) -> None:
        """Remember a further secret that must not be shown: an access token."""
        self._known.add(value)

    def redacted(self, text: str) -> str:
        """Give the text without any of the secrets."""
        for value in sorted(self._known, key=len, reverse=True):
            if len(value) >= _SHORTEST:
                text = text.replace(value, "[secret]")
        return text
