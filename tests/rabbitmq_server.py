"""RabbitMQ of the system (.ci/bench-servers installs it): an old broker of others."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import amqp

from jobbridge.dev.process import ManagedProcess, free_port
from tests.support import wait_until

#: Not the one in the PATH, which becomes the account `rabbitmq`, whose folders are the system's.
_BINARY = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_READY_WITHIN = 120.0  # seconds


@contextmanager
def run_rabbitmq(folder: Path) -> Iterator[str]:
    """Run one until the block ends, and give its URL."""
    assert _BINARY.exists(), "rabbitmq-server is not installed: run .ci/bench-servers as root, or install it"
    home = folder / "rabbitmq"
    home.mkdir()
    port, mapper_port = free_port(), free_port()
    environment = {
        **os.environ,
        "HOME": str(home),
        "ERL_EPMD_PORT": str(mapper_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"test-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(home / "logs"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(home / "none"),
        "RABBITMQ_CONF_ENV_FILE": str(home / "none.env"),
    }
    with ExitStack() as stack:
        # Erlang would start its port mapper as a daemon that outlives us.
        mapper = ManagedProcess(
            name="epmd",
            argv=["epmd", "-address", "127.0.0.1", "-port", str(mapper_port)],
            log_path=home / "epmd.log",
            env=dict(os.environ),
        ).start()
        stack.callback(mapper.stop)
        process = ManagedProcess(
            name="RabbitMQ", argv=[str(_BINARY)], log_path=home / "log", env=environment, cwd=home
        ).start()
        stack.callback(process.kill)
        wait_until(
            lambda: _answers(port), timeout=_READY_WITHIN, message=f"RabbitMQ; its log:\n{process.tail(20)}"
        )
        yield f"amqp://guest:guest@127.0.0.1:{port}//"


def _answers(port: int) -> bool:
    try:
        with amqp.Connection(f"127.0.0.1:{port}", connect_timeout=5) as connection:
            return bool(connection.connected)
    except (OSError, amqp.AMQPError):
        return False
