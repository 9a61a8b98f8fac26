"""The servers of one run, on ports of their own, with their data on disk under `build/bench`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import amqp
import psycopg

from benchmarks.ledger import WrongNumber
from jobbridge.dev.postgres import PostgresServer, run_postgres
from jobbridge.dev.process import DevServerError, ManagedProcess, free_port
from jobbridge.dev.temporal import TemporalServer, run_temporal
from tests.support import Value, wait_until

#: Beyond the defaults of `jobbridge.dev.postgres`, for all systems that use it. A checkpoint by size or time would fall
#: into one measure or another.
_POSTGRES = {"shared_buffers": "256MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h"}
#: Not the one in the PATH, which becomes the account `rabbitmq`, whose folders are the system's.
_RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_READY_WITHIN = 90.0  # seconds


@dataclass(kw_only=True)
class Servers:
    """Those that run; `missing` says why others do not."""

    postgres: PostgresServer
    redis_port: int = 0
    rabbitmq_port: int = 0
    temporal: TemporalServer | None = None
    missing: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.redis_port}/0"

    @property
    def rabbitmq_url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.rabbitmq_port}//"

    def redis(self, *words: str) -> str:
        """Ask Redis something."""
        return _output(["redis-cli", "-h", "127.0.0.1", "-p", str(self.redis_port), *words])

    def temporal_running(self, task_queue: str, *, activities: bool) -> int:
        """Ask Temporal how many workflows run on a task queue, or activities of none."""
        assert self.temporal is not None
        kind = "activity" if activities else "workflow"
        query = f"TaskQueue = '{task_queue}' AND ExecutionStatus = 'Running'"
        answer = json.loads(self.temporal.run_cli(kind, "count", "--query", query, "-o", "json"))
        return int(answer.get("count", 0))

    @contextmanager
    def rabbitmq(self) -> Iterator[Any]:
        """Open a channel to RabbitMQ."""
        with amqp.Connection(f"127.0.0.1:{self.rabbitmq_port}", connect_timeout=5) as connection:
            yield connection.channel()


@contextmanager
def run_servers(folder: Path, wanted: set[str]) -> Iterator[Servers]:
    """Run Postgres, and of `redis`, `rabbitmq` and `temporal` those that are wanted and installed.

    Raises:
        WrongNumber: Postgres is not durable here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="servers-", dir=folder.resolve()) as name, ExitStack() as stack:
        home = Path(name)
        home.chmod(0o755)  # Postgres runs as another account
        servers = Servers(postgres=stack.enter_context(run_postgres(home / "postgres", settings=_POSTGRES)))
        servers.versions["postgres"] = _check_durable(servers.postgres)
        for server, start in _STARTS.items():
            if server in wanted and (reason := start(servers, home / server, stack)):
                servers.missing[server] = reason
        yield servers


def _check_durable(server: PostgresServer) -> str:
    with psycopg.connect(server.url()) as connection:
        row = connection.execute(
            "SELECT current_setting('fsync'), current_setting('synchronous_commit'),"
            " current_setting('server_version')"
        ).fetchone()
    assert row is not None
    kind = _output(["stat", "-f", "-c", "%T", str(server.data_folder)])
    if row[:2] != ("on", "on") or kind in ("tmpfs", "ramfs"):
        raise WrongNumber(
            f"Postgres is not durable: fsync and synchronous_commit are {row[:2]}, its data is on {kind}."
        )
    return str(row[2])


def _start_redis(servers: Servers, home: Path, stack: ExitStack) -> str | None:
    if shutil.which("redis-server") is None or shutil.which("redis-cli") is None:
        return "redis-server is not installed (Debian: apt-get install redis-server)"
    home.mkdir()
    servers.redis_port = port = free_port()
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", ""]
    # What Redis' documentation advises to whoever wants its data to survive: at most a second is lost.
    argv += ["--appendonly", "yes", "--appendfsync", "everysec"]
    process = ManagedProcess(name="Redis", argv=argv, log_path=home / "log").start()
    stack.callback(process.stop)
    _wait(process, lambda: servers.redis("PING") == "PONG")
    servers.versions["redis"] = servers.redis("INFO", "server").split("redis_version:")[1].split()[0]
    return None


def _start_rabbitmq(servers: Servers, home: Path, stack: ExitStack) -> str | None:
    if not _RABBITMQ.exists() or shutil.which("epmd") is None:
        return "rabbitmq-server is not installed (Debian: apt-get install rabbitmq-server)"
    home.mkdir()
    servers.rabbitmq_port = port = free_port()
    mapper_port = free_port()
    environment = {
        **os.environ,
        "HOME": str(home),
        "ERL_EPMD_PORT": str(mapper_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"bench-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(home / "logs"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(home / "none"),
        "RABBITMQ_CONF_ENV_FILE": str(home / "none.env"),
    }
    # Erlang would start its port mapper as a daemon that outlives us.
    mapper = ManagedProcess(
        name="epmd",
        argv=["epmd", "-address", "127.0.0.1", "-port", str(mapper_port)],
        log_path=home / "epmd.log",
    ).start()
    stack.callback(mapper.stop)
    process = ManagedProcess(
        name="RabbitMQ", argv=[str(_RABBITMQ)], log_path=home / "log", env=environment, cwd=home
    ).start()
    stack.callback(process.stop)

    def answers() -> str:
        with servers.rabbitmq() as channel:
            return str(channel.connection.server_properties["version"])

    servers.versions["rabbitmq"] = _wait(process, answers)
    return None


def _start_temporal(servers: Servers, home: Path, stack: ExitStack) -> str | None:
    home.mkdir()
    try:
        servers.temporal = stack.enter_context(run_temporal(log_path=home / "log"))
    except DevServerError as error:
        return str(error)
    servers.versions["temporal"] = (
        _output([str(servers.temporal.cli), "--version"]).split("Server ")[1].split(",")[0]
    )
    return None


_STARTS: dict[str, Callable[[Servers, Path, ExitStack], str | None]] = {
    "redis": _start_redis,
    "rabbitmq": _start_rabbitmq,
    "temporal": _start_temporal,
}


def _wait(process: ManagedProcess, condition: Callable[[], Value]) -> Value:
    def ready() -> Value:
        assert process.is_running, process.tail()
        try:
            return condition()
        except (OSError, subprocess.CalledProcessError, amqp.AMQPError) as error:
            raise AssertionError(f"{process.name}: {error}") from error

    return wait_until(ready, timeout=_READY_WITHIN, every=0.1)


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
