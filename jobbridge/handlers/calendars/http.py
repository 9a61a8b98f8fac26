"""Ask a provider over HTTP: with an access token, and with an error for each way in which it can say no."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from jobbridge.handlers.calendars.errors import (
    LONGEST_WAIT,
    AccessDenied,
    CredentialsRefused,
    ProviderUnavailable,
    RateLimited,
    RequestRefused,
    TryAgainLater,
)
from jobbridge.handlers.calendars.secrets import Secret
from jobbridge.handlers.extras import required

if TYPE_CHECKING:
    import httpx

#: For one answer.
TIMEOUT = timedelta(seconds=20)

#: Where a server says "not now" and not when.
DEFAULT_WAIT = timedelta(seconds=30)

_LONGEST_REASON = 300

#: Gives the form that is sent for an access token.
TokenForm = Callable[[Secret], Mapping[str, str]]


class ProviderApi:
    """One provider's endpoints, as one secret sees them.

    Args:
        base_url: Paths are appended to it; no request goes to another host.
        token_url: Where access tokens come from.
    """

    def __init__(
        self, http: httpx.Client, *, base_url: str, token_url: str, secret: Secret, token_form: TokenForm
    ) -> None:
        self._http, self._base_url, self._token_url = http, base_url.rstrip("/"), token_url
        self._secret, self._token_form = secret, token_form
        self._token: str | None = None

    def call(
        self, method: str, path: str, *, json: Mapping[str, Any] | None = None, absent: Collection[int] = ()
    ) -> dict[str, Any] | None:
        """Make a request; an access token that is refused is renewed once.

        Args:
            path: Below `base_url`, or a whole URL of the same host.
            absent: Status codes that say that it does not exist (any more).

        Returns:
            The answer's JSON object, empty if it has none; None if it is absent.

        Raises:
            ProviderUnavailable: No answer, 5xx, or an answer that cannot be read.
            RateLimited: 429.
            TryAgainLater: 429, for a long time.
            CredentialsRefused: 401, also with a new token.
            AccessDenied: 403.
            RequestRefused: Another 4xx.
        """
        url = self._url(path)
        answer = self._send(method, url, json=json, headers=self._authorization())
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            self._token = None
            answer = self._send(method, url, json=json, headers=self._authorization())
        if answer.status_code in absent:
            return None
        self._refuse(f"{method} {urlsplit(url).path}", answer)
        return self._object(answer)

    def _url(self, path: str) -> str:
        if "://" not in path:
            return f"{self._base_url}/{path.lstrip('/')}"
        if urlsplit(path)[:2] != urlsplit(self._base_url)[:2]:
            raise ProviderUnavailable(f"{self._base_url} refers to another host: {urlsplit(path).netloc}.")
        return path

    def _authorization(self) -> dict[str, str]:
        if self._token is None:
            self._token = self._new_token()
            self._secret.also(self._token)
        return {"Authorization": f"Bearer {self._token}"}

    def _new_token(self) -> str:
        answer = self._send("POST", self._token_url, form=self._token_form(self._secret))
        if answer.status_code in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED):
            raise CredentialsRefused(f"{self._host(self._token_url)} gives no token: {self._reason(answer)}")
        self._refuse(f"POST {urlsplit(self._token_url).path}", answer)
        token = self._object(answer).get("access_token")
        if not isinstance(token, str) or not token:
            raise ProviderUnavailable(f"{self._host(self._token_url)} answers without a token.")
        return token

    def _send(
        self,
        method: str,
        url: str,
        *,
        json: Mapping[str, Any] | None = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        errors = required("httpx", "Asking a calendar's provider")
        try:
            return self._http.request(method, url, json=json, data=form, headers=headers)
        except errors.TimeoutException as error:
            raise ProviderUnavailable(f"{self._host(url)} does not answer: {type(error).__name__}.") from None
        except (errors.HTTPError, errors.InvalidURL) as error:
            told = self._secret.redacted(f"{type(error).__name__}: {error}")
            raise ProviderUnavailable(f"{self._host(url)} cannot be reached: {told}.") from None

    def _refuse(self, what: str, answer: httpx.Response) -> None:
        """Pass if the answer is a good one."""
        if answer.is_success:
            return
        told = f"{self._host(str(answer.url))} says {answer.status_code} to {what}: {self._reason(answer)}"
        match answer.status_code:
            case HTTPStatus.TOO_MANY_REQUESTS:
                now = datetime.now(UTC)
                wait = retry_after(answer.headers.get("Retry-After"), now)
                if wait > LONGEST_WAIT:
                    raise TryAgainLater.about(self._host(str(answer.url)), wait, now)
                raise RateLimited.about(self._host(str(answer.url)), wait)
            case HTTPStatus.UNAUTHORIZED:
                raise CredentialsRefused(told)
            case HTTPStatus.FORBIDDEN:
                raise AccessDenied(told)
            case status if 400 <= status < 500 and status != HTTPStatus.REQUEST_TIMEOUT:
                raise RequestRefused(told)
            case _:
                raise ProviderUnavailable(told)

    def _object(self, answer: httpx.Response) -> dict[str, Any]:
        if not answer.content:
            return {}
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ProviderUnavailable(
                f"{self._host(str(answer.url))} answers with something that is no JSON object."
            )
        return found

    def _reason(self, answer: httpx.Response) -> str:
        """Give what the provider says, in one line: Graph, Google and OAuth each have a form of their own."""
        try:
            body = answer.json()
        except ValueError:
            body = None
        error = body.get("error") if isinstance(body, dict) else None
        if isinstance(error, dict):
            text = f"{error.get('code', '')} {error.get('message', '')}"
        elif isinstance(error, str) and isinstance(body, dict):
            text = f"{error} {body.get('error_description', '')}"
        else:
            text = answer.text
        # Redacted before it is cut: half a secret is one too.
        return " ".join(self._secret.redacted(text).split())[:_LONGEST_REASON] or answer.reason_phrase

    def _host(self, url: str) -> str:
        return urlsplit(url).netloc


def retry_after(header: str | None, now: datetime) -> timedelta:
    """Read the header Retry-After: seconds, or a date (RFC 9110, 10.2.3)."""
    if header is None:
        return DEFAULT_WAIT
    if header.strip().isdigit():
        return timedelta(seconds=min(int(header), 10**8))
    try:
        at = parsedate_to_datetime(header)
    except ValueError:
        return DEFAULT_WAIT
    return max(timedelta(0), (at if at.tzinfo else at.replace(tzinfo=UTC)) - now)
