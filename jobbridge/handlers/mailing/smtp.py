"""Send mail by SMTP, and know afterwards whether it was sent.

`smtplib.send_message` cannot tell: it raises the same error whether the connection broke before the mail went out
or after. So the dialogue is spelt out here, in three parts: up to the server's 354 nothing is sent; after the final
dot and before the server's answer nobody knows; the answer decides.

Source: RFC 5321, sections 4.1.1.4 and 4.2; RFC 1047 on the gap between the dot and the answer.
"""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from email import policy
from email.message import EmailMessage
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from jobbridge.errors import ConfigurationError
from jobbridge.handlers.mailing.errors import MailDeferred, MailRefused, MailServerUnavailable, MailUncertain

DEFAULT_PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
TIMEOUT = 30.0  # seconds for one answer of the server

_LOST = (smtplib.SMTPException, OSError)


@dataclass(frozen=True, kw_only=True, slots=True)
class SmtpServer:
    """Where mail is handed in."""

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, url: str) -> SmtpServer:
        """Read `smtp://`, `smtp+starttls://` or `smtps://`, each with `user:password@` if the server wants it.

        Raises:
            ConfigurationError: It is no such URL.
        """
        parts = urlsplit(url)
        hint = "Set SMTP_URL to smtp://host:25, smtp+starttls://user:password@host or smtps://user:password@host."
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise ConfigurationError(f"SMTP_URL starts with {parts.scheme!r}, or names no host.", hint=hint)
        try:
            port = parts.port or DEFAULT_PORTS[parts.scheme]
        except ValueError as error:
            raise ConfigurationError(f"SMTP_URL names no usable port: {error}.", hint=hint) from None
        return cls(
            scheme=parts.scheme,
            host=parts.hostname,
            port=port,
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
        )

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


class MailSender:
    """A connection to the mail server, opened for the first mail and again after it was lost; closed by `with`.

    Once the server cannot be reached, every further mail fails at once: it would only wait for another timeout.
    """

    def __init__(self, server: SmtpServer) -> None:
        self._server = server
        self._smtp: smtplib.SMTP | None = None
        self._given_up: MailServerUnavailable | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._smtp is None:
            return
        try:
            self._smtp.quit()
        except _LOST:
            self._smtp.close()

    def send(self, message: EmailMessage, *, sender: str, recipient: str, claim: Callable[[], None]) -> str:
        """Send one mail.

        Args:
            message: With its headers, a Message-ID among them.
            claim: Called when the server has accepted both addresses, before the mail goes out. What it raises is
                raised, and nothing was sent.

        Returns:
            The server's answer.

        Raises:
            MailServerUnavailable: No connection; nothing was sent.
            MailDeferred: Not now; nothing was sent.
            MailRefused: Never; nothing was sent.
            MailUncertain: It may have been sent.
        """
        smtp = self._announced(sender, recipient)
        try:
            claim()
            self._expect(354, smtp.docmd("DATA"), recipient)
        except _LOST as error:
            raise self._lost(error) from error
        except BaseException:
            self._drop()  # in the middle of a dialogue: what the server expects next is unclear
            raise
        return self._hand_over(smtp, message, recipient)

    def _hand_over(self, smtp: smtplib.SMTP, message: EmailMessage, recipient: str) -> str:
        try:
            smtp.send(_wire_form(message))
            answer = smtp.getreply()
        except _LOST as error:
            self._drop()
            raise MailUncertain.about(recipient, str(message["Message-ID"])) from error
        return self._expect(250, answer, recipient)

    def _connected(self) -> smtplib.SMTP:
        if self._given_up is not None:
            raise self._given_up
        if self._smtp is None:
            try:
                self._smtp = self._connect()
            except _LOST as error:
                self._given_up = self._lost(error)
                raise self._given_up from error
        return self._smtp

    def _connect(self) -> smtplib.SMTP:
        server = self._server
        if server.scheme == "smtps":
            context = ssl.create_default_context()
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT, context=context)
        else:
            smtp = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT)
        try:
            if server.scheme == "smtp+starttls":
                smtp.starttls(context=ssl.create_default_context())
            if server.user is not None:
                smtp.login(server.user, server.password or "")
            smtp.ehlo_or_helo_if_needed()
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _announced(self, sender: str, recipient: str) -> smtplib.SMTP:
        """Give a connection on which the server has accepted both addresses.

        One that was open may have been closed meanwhile: by a time limit, or after so many mails. Then on a new one.
        """
        was_open = self._smtp is not None
        try:
            return self._announce(sender, recipient)
        except MailServerUnavailable:
            if not was_open:
                raise
            return self._announce(sender, recipient)

    def _announce(self, sender: str, recipient: str) -> smtplib.SMTP:
        smtp = self._connected()
        options = [] if sender.isascii() and recipient.isascii() else ["SMTPUTF8"]
        if options and not smtp.has_extn("smtputf8"):
            raise MailRefused(f"{self._server} takes no addresses beyond ASCII, such as {recipient}.")
        try:
            self._expect(250, smtp.mail(sender, options), sender)
            self._expect(250, smtp.rcpt(recipient), recipient)
        except _LOST as error:
            raise self._lost(error) from error
        except BaseException:
            self._drop()  # in the middle of a dialogue: what the server expects next is unclear
            raise
        return smtp

    def _expect(self, wanted: int, answer: tuple[int, bytes], address: str) -> str:
        code, text = answer
        said = f"{code} {text.decode(errors='replace')}"
        if code == wanted or (wanted == 250 and code == 251):  # 251: will forward
            return said
        if code == 421:  # "closing the channel", allowed as the answer to anything
            self._drop()
            raise MailServerUnavailable(f"{self._server} closes the connection: {said}")
        kind = MailRefused if 500 <= code < 600 else MailDeferred
        self._drop()
        raise kind(f"{self._server} does not take the mail for {address}: {said}")

    def _lost(self, error: Exception) -> MailServerUnavailable:
        self._drop()
        return MailServerUnavailable(f"{self._server} cannot be used: {type(error).__name__}: {error}")

    def _drop(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
            self._smtp = None


def _wire_form(message: EmailMessage) -> bytes:
    addresses = [address.addr_spec for name in ("From", "To") for address in message[name].addresses]
    is_ascii = all(address.isascii() for address in addresses)
    lines = message.as_bytes(policy=policy.SMTP if is_ascii else policy.SMTPUTF8)
    # "Transparency" (RFC 5321, 4.5.2): a line of one dot would end the mail.
    return re.sub(rb"(?m)^\.", b"..", lines).rstrip(b"\r\n") + b"\r\n.\r\n"
