"""How Temporal is reached, read from the settings: what cannot work is named before anything is sent."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from temporalio.service import TLSConfig

from jobbridge.errors import ConfigurationError
from jobbridge.settings import Settings

DEFAULT_PORT = 7233

_ADDRESS = re.compile(r"^(?P<host>\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?$")
_ADDRESS_FORM = "Write TEMPORAL_ADDRESS as host:port; without a port it is 7233."


@dataclass(frozen=True, kw_only=True)
class Access:
    """What the SDK's client is given.

    Attributes:
        target: `host:port`.
        namespace: By its name.
        api_key: None: none.
        tls: False: none.
    """

    target: str
    namespace: str
    api_key: str | None
    tls: bool | TLSConfig | None

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """Read the settings.

        Raises:
            ConfigurationError: One of them cannot work, whatever the server says.
        """
        return cls(
            target=target_of(settings.temporal_address),
            namespace=_namespace(settings.temporal_namespace),
            api_key=_api_key(settings),
            tls=_tls(settings),
        )


def target_of(address: str) -> str:
    """Give `host:port`; without a port it is 7233.

    Raises:
        ConfigurationError: It is no address.
    """
    parts = _ADDRESS.match(address.strip())
    port = int(parts["port"] or DEFAULT_PORT) if parts is not None else 0
    if parts is None or not 0 < port < 1 << 16:
        raise ConfigurationError(f"TEMPORAL_ADDRESS is {address!r}.", hint=_ADDRESS_FORM)
    return f"{parts['host']}:{port}"


def _namespace(name: str) -> str:
    if not (stripped := name.strip()) or not stripped.isprintable():
        raise ConfigurationError(f"TEMPORAL_NAMESPACE is {name!r}.", hint="Name one that the server has.")
    return stripped


def _api_key(settings: Settings) -> str | None:
    if settings.temporal_api_key is None:
        return None
    key = settings.temporal_api_key.get_secret_value().strip()
    if not key.isascii() or not key.isprintable():
        raise ConfigurationError(
            "TEMPORAL_API_KEY has characters that no header can carry.", hint="Copy the key again."
        )
    return key or None


def _tls(settings: Settings) -> bool | TLSConfig | None:
    ca, certificate, key = (
        settings.temporal_tls_server_ca_cert,
        settings.temporal_tls_client_cert,
        settings.temporal_tls_client_key,
    )
    if (certificate is None) != (key is None):
        raise ConfigurationError(
            "Only one of TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH is set.",
            hint="Set both, or neither.",
        )
    if ca is None and certificate is None:
        return True if settings.temporal_tls else None
    given = TLSConfig(
        server_root_ca_cert=_read(ca, "TEMPORAL_TLS_SERVER_CA_CERT_PATH"),
        client_cert=_read(certificate, "TEMPORAL_TLS_CLIENT_CERT_PATH"),
        client_private_key=_read(key, "TEMPORAL_TLS_CLIENT_KEY_PATH"),
    )
    _check_certificates(ca, certificate, key)
    return given


def _read(path: Path | None, name: str) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{name} is {str(path)!r}, which cannot be read: {error.strerror}.", hint="Correct the path."
        ) from error


def _check_certificates(ca: Path | None, certificate: Path | None, key: Path | None) -> None:
    """Read them as OpenSSL does: the SDK reads them when it connects, and calls it an unreachable server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca is not None:
            context.load_verify_locations(cafile=ca)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"TEMPORAL_TLS_SERVER_CA_CERT_PATH is {str(ca)!r}, which holds no certificate.",
            hint="Give a file in PEM form.",
        ) from error
    try:
        if certificate is not None:
            context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"The certificate {str(certificate)!r} and the key {str(key)!r} cannot be used: "
            f"{(error.reason or str(error)).replace('_', ' ').lower()}.",
            hint="TEMPORAL_TLS_CLIENT_CERT_PATH and TEMPORAL_TLS_CLIENT_KEY_PATH name a certificate and its own key, "
            "in PEM form and without a passphrase.",
        ) from error
