"""Which source reads an old broker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kombu import Connection

from jobbridge.errors import ConfigurationError, UnsupportedOption

if TYPE_CHECKING:
    from jobbridge.cutover.sources.base import Source

_READ = ("redis://, rediss://, sentinel://, amqp://, amqps://, pyamqp:// and sqla+…",)


@contextmanager
def opened(url: str, options: Mapping[str, Any]) -> Iterator[Source]:
    """Open an old broker until the block ends.

    Args:
        url: As Celery's `broker_url`.
        options: As Celery's `broker_transport_options`, of that broker.

    Raises:
        UnsupportedOption: Its messages cannot be read.
        ConfigurationError: What it needs is not installed.
        OperationalError: It cannot be reached.
    """
    scheme = url.partition("://")[0].partition("+")[0].lower()
    try:
        make = _maker(scheme)
        connection = Connection(url, transport_options=dict(options))
        connection.ensure_connection(max_retries=1, timeout=10)
        source = make(connection)
    except ImportError as error:
        raise ConfigurationError(
            f"To read {scheme}://, the package {_missing(scheme, error)} is needed, which is not installed.",
            hint=f"Run `pip install {_missing(scheme, error)}`, as the old workers have it.",
        ) from error
    try:
        yield source
    finally:
        source.close()


def _maker(scheme: str) -> Any:
    if scheme in ("redis", "rediss", "sentinel"):
        from jobbridge.cutover.sources.redis import RedisSource

        return RedisSource
    if scheme in ("amqp", "amqps", "pyamqp"):
        from jobbridge.cutover.sources.amqp import AmqpSource

        return AmqpSource
    if scheme in ("sqla", "sqlalchemy"):
        from jobbridge.cutover.sources.sqla import SqlaSource

        return SqlaSource
    raise UnsupportedOption(
        f"What waits at {scheme}:// cannot be taken over.",
        hint=f"Let its workers finish what it has. These are read: {_READ[0]}.",
    )


def _missing(scheme: str, error: ImportError) -> str:
    # Where its client is not there, kombu says that something of it is None, and not what is missing.
    return "redis" if scheme in ("redis", "rediss", "sentinel") else (error.name or str(error))
