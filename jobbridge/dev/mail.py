"""A mail server that delivers nothing: each mail becomes a file."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

from jobbridge.dev.process import DevServerError, free_port


@dataclass(frozen=True, kw_only=True)
class MailSink:
    """Where mails go."""

    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def paths(self) -> list[Path]:
        """Name the mails that came, sorted."""
        return sorted(self.folder.glob("*.eml"))


@contextmanager
def run_mail_sink(folder: Path, *, port: int | None = None) -> Iterator[MailSink]:
    """Take mails by SMTP in a thread of this process, and write each to `folder` as `.eml`.

    Raises:
        DevServerError: The extra is not installed, or the port is taken.
    """
    try:
        from aiosmtpd.controller import Controller
    except ImportError:
        raise DevServerError(
            "The mail server for development is not installed.",
            hint="Run `pip install 'jobbridge[dev-servers]'`.",
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    controller = Controller(_MailWriter(folder), hostname="127.0.0.1", port=port)
    try:
        controller.start()
    except OSError as error:
        raise DevServerError(f"The mail server cannot listen on port {port}: {error}") from None
    try:
        yield MailSink(port=port, folder=folder)
    finally:
        controller.stop()


@dataclass(kw_only=False)
class _MailWriter:
    """aiosmtpd's handler."""

    folder: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        content = envelope.content
        message = message_from_bytes(content, policy=policy.default)
        words = f"{message.get('Subject', 'no subject')} to {', '.join(envelope.rcpt_tos)}"
        stem = re.sub(r"[^\w.@+-]+", "-", words).strip("-")[:120]
        with self._lock:
            path = self.folder / f"{stem}.eml"
            number = 1
            while path.exists():
                number += 1
                path = self.folder / f"{stem}-{number}.eml"
            path.write_bytes(content)
        return "250 Message accepted for delivery"
