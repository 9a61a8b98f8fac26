"""TLS, client certificates and API keys, against the dev server behind a proxy that ends TLS and asks for them."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from jobbridge.core.keys import Engine
from jobbridge.errors import EngineUnavailable
from jobbridge.settings import load_settings
from tests.parity import secret_tasks  # noqa: F401  (its tasks are the app's)
from tests.parity.conftest import World, make_world
from tests.parity.tasks import make_app

TIMEOUT = 60
#: Of characters whose codes in HTTP/2's headers are known here.
API_KEY = "acetosa0120102"
#: RFC 7541, appendix B.
_HUFFMAN = {
    "0": "00000", "1": "00001", "2": "00010", "a": "00011", "c": "00100", "e": "00101", "o": "00111", "s": "01000",
    "t": "01001", " ": "010100", "r": "101100", "B": "1011101",
}  # fmt: skip


def in_header(text: str) -> bytes:
    """Give a header's value as gRPC's client sends it."""
    bits = "".join(_HUFFMAN[letter] for letter in text)
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


@dataclass
class Authority:
    """Signs certificates into a folder."""

    folder: Path
    name: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def __post_init__(self) -> None:
        self.certificate = self.path("authority.pem", self._sign(self.name, self.key, is_authority=True))

    def path(self, name: str, content: bytes) -> Path:
        path = self.folder / f"{self.name}-{name}"
        path.write_bytes(content)
        return path

    def issue(self, name: str) -> tuple[Path, Path]:
        """Give certificate and key."""
        key = ec.generate_private_key(ec.SECP256R1())
        form = serialization.PrivateFormat.PKCS8
        private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        return self.path(f"{name}.pem", self._sign(name, key)), self.path(f"{name}.key", private)

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, *, is_authority: bool = False) -> bytes:
        now = datetime.now(UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )


@dataclass
class Proxy:
    """Where it listens, and what clients have sent, decrypted."""

    address: str
    seen: bytearray


@contextmanager
def tls_proxy(target: str, own: tuple[Path, Path], clients: Path | None) -> Iterator[Proxy]:
    """Serve TLS in front of an address; with `clients`, only for whom that authority knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*own)
    context.set_alpn_protocols(["h2"])
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED
    host, _, port = target.partition(":")
    seen, loop = bytearray(), asyncio.new_event_loop()
    writers: list[asyncio.StreamWriter] = []

    async def pump(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: bytearray | None
    ) -> None:
        try:
            while part := await reader.read(65536):
                if keep is not None:
                    keep += part
                writer.write(part)
                await writer.drain()
        except (OSError, ssl.SSLError):
            pass
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        inner_reader, inner_writer = await asyncio.open_connection(host, int(port))
        writers.append(inner_writer)
        await asyncio.gather(pump(reader, inner_writer, seen), pump(inner_reader, writer, None))

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def stop() -> None:
        server.close()
        served = asyncio.all_tasks() - {asyncio.current_task()}
        for task in served:
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        for _ in range(10):  # turns of the loop, in which their sockets are closed
            await asyncio.sleep(0)

    try:
        yield Proxy(f"localhost:{server.sockets[0].getsockname()[1]}", seen)
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


def world_behind(
    proxy: Proxy, database_url: str, tmp_path: Path, task_queue: str, request: pytest.FixtureRequest,
    started: ExitStack, **settings: str,
) -> World:  # fmt: skip
    told = {"TEMPORAL_ADDRESS": proxy.address, "JOB_RUNNER_FALLBACK_TO_CELERY": "false", **settings}
    return make_world(Engine.TEMPORAL, database_url, tmp_path, task_queue, request, started, **told)


def test_jobs_run_over_tls_with_a_client_certificate_and_an_api_key(
    authority: Authority,
    temporal_server: str,
    database_url: str,
    tmp_path: Path,
    task_queue: str,
    request: pytest.FixtureRequest,
) -> None:
    certificate, key = authority.issue("client")
    stranger, strangers_key = Authority(tmp_path, "theirs").issue("stranger")
    ca = {"TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(authority.certificate)}
    cert_name, key_name = "TEMPORAL_TLS_CLIENT_CERT_PATH", "TEMPORAL_TLS_CLIENT_KEY_PATH"
    right = {**ca, cert_name: str(certificate), key_name: str(key), "TEMPORAL_API_KEY": API_KEY}
    with ExitStack() as started:
        proxy = started.enter_context(
            tls_proxy(temporal_server, authority.issue("server"), authority.certificate)
        )
        world = world_behind(proxy, database_url, tmp_path, task_queue, request, started, **right)
        world.worker("-P", "solo")

        assert world.task("secret_echo").delay("over TLS").get(timeout=TIMEOUT) == {"echo": "over TLS"}
        assert in_header(f"Bearer {API_KEY}")[:-1] in proxy.seen
        for name, settings in {
            "no certificate of its own": {**ca, cert_name: "", key_name: ""},
            "one of another authority": {**ca, cert_name: str(stranger), key_name: str(strangers_key)},
            "the server's authority is unknown": {**right, "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(stranger)},
            "no TLS": dict.fromkeys(right, ""),
        }.items():
            app = make_app(settings=load_settings({**world.environment, **settings}))
            app.finalize()
            with pytest.raises(EngineUnavailable):
                app.delivery(Engine.TEMPORAL).check()
            assert (
                app.tasks["parity.secret_echo"].delay(name).state == "PENDING"
            )  # the worker's relay sends it
            app.close()
