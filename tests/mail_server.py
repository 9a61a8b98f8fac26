"""A mail server that says what a test tells it to: aiosmtpd on a free port, in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller

from jobbridge.dev.process import free_port

#: Given the recipient, what to say. None: take it. "hang up": close the connection without a word.
Answer = Callable[[str], str | None]

HANG_UP = "hang up"


def take(recipient: str) -> str | None:
    return None


class MailServer:
    """Attributes: at_rcpt, at_data: what it says; mails: what it took; url."""

    def __init__(self) -> None:
        self.at_rcpt: Answer = take
        self.at_data: Answer = take
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.connections = 0
        self.port = free_port()
        self.url = f"smtp://127.0.0.1:{self.port}"

    async def handle_EHLO(  # noqa: N802
        self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]
    ) -> Any:
        self.connections += 1
        session.host_name = hostname
        return responses

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        answer = self.at_rcpt(address)
        if answer == HANG_UP:
            server.transport.abort()
        if answer is not None:
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        (recipient,) = envelope.rcpt_tos
        answer = self.at_data(recipient)
        if answer is None or answer == HANG_UP:  # hanging up, it may still have delivered it
            self.mails.append(message_from_bytes(envelope.content, EmailMessage, policy=policy.default))
            self.recipients.append(recipient)
        if answer == HANG_UP:
            server.transport.abort()
        return answer or "250 Accepted"


@contextmanager
def run_mail_server(*, takes_unicode: bool = False) -> Iterator[MailServer]:
    mail_server = MailServer()
    controller = Controller(
        mail_server, hostname="127.0.0.1", port=mail_server.port, enable_SMTPUTF8=takes_unicode
    )
    controller.start()
    try:
        yield mail_server
    finally:
        controller.stop()
