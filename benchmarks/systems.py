"""The systems: what each needs, how its worker and its sender are started, and what it still has to do."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import amqp
import psycopg

from benchmarks.servers import Servers
from tests.support import REPOSITORY, clean_environment

HOME = REPOSITORY / "build" / "bench"
PEERS_PYTHON = HOME / "venv" / "bin" / "python"
NODE_FOLDER = HOME / "node"

CONCURRENCY = 2
_QUEUE = "celery"

#: What a system can do; every one can be published to, drained and asked for its latency.
BULK, RESULTS, CHORDS, GROUPS = "bulk", "results", "chords", "groups"
_ALL = frozenset({BULK, RESULTS, CHORDS, GROUPS})


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of the table.

    Args:
        name: As in `latest.json`.
        title: As people say.
        kind: Which sender and worker it has.
        server: Where its messages are.
        can: Beyond what all can.
        unfinished: SQL, if its messages are in Postgres: one row of counts, each of which is the number of jobs that
            are not done.
    """

    name: str
    title: str
    kind: str = "celery"
    server: str = "postgres"
    can: frozenset[str] = frozenset()
    unfinished: str | None = None

    @property
    def is_ours(self) -> bool:
        return self.name.startswith("jobbridge")

    @property
    def runs_here(self) -> bool:
        """Whether our own environment has what it needs."""
        return self.is_ours or self.kind in ("limit", "temporal")

    def missing(self, servers: Servers) -> str | None:
        """Say why it cannot be measured here; None if it can."""
        if reason := servers.missing.get(self.server):
            return reason
        if self.kind == "pgboss":
            return (
                None
                if _node()
                else "pg-boss is not installed (it needs node and npm: `make bench` installs it)"
            )
        if not self.runs_here and not PEERS_PYTHON.exists():
            return f"there is no {PEERS_PYTHON.relative_to(REPOSITORY)} (`make bench` makes it)"
        return None


_OURS = "SELECT (SELECT count(*) FROM jobbridge_broker.messages)"
_ROWS = "SELECT (SELECT count(*) FROM public.jobs WHERE completed_at IS NULL)"
_OURS_TRACKED = """
SELECT (SELECT count(*) FROM jobbridge_broker.messages), (SELECT count(*) FROM public.jobs WHERE completed_at IS NULL)
"""

SYSTEMS = {
    system.name: system
    for system in (
        System(
            name="jobbridge",
            title="JobBridge",
            can=_ALL,
            unfinished=_OURS_TRACKED,
        ),
        System(
            name="jobbridge_untracked",
            title="JobBridge, untracked",
            can=frozenset({BULK, GROUPS}),
            unfinished=_OURS,
        ),
        System(name="celery_redis", title="Celery + Redis", server="redis", can=_ALL - {BULK}),
        # Its results (rpc://) have no chords.
        System(
            name="celery_rabbitmq",
            title="Celery + RabbitMQ",
            server="rabbitmq",
            can=frozenset({RESULTS, GROUPS}),
        ),
        System(
            name="celery_rabbitmq_confirm",
            title="Celery + RabbitMQ, confirmed",
            server="rabbitmq",
            can=frozenset({RESULTS, GROUPS}),
        ),
        System(
            name="celery_sqla",
            title="Celery + SQLAlchemy transport",
            can=_ALL - {BULK},
            unfinished="SELECT count(*) FROM kombu_message WHERE visible",  # those that were taken stay
        ),
        System(
            name="procrastinate",
            title="procrastinate",
            kind="procrastinate",
            can=frozenset({BULK}),
            unfinished="SELECT count(*) FROM procrastinate_jobs WHERE status NOT IN ('succeeded')",
        ),
        System(
            name="potatoq",
            title="potatoq",
            kind="potatoq",
            can=_ALL - {BULK},
            unfinished="SELECT count(*) FROM potatoq_jobs",
        ),
        System(
            name="pgboss",
            title="pg-boss",
            kind="pgboss",
            can=frozenset({BULK}),
            unfinished="SELECT count(*) FROM pgboss.job WHERE name = 'bench' AND state <> 'completed'",
        ),
        System(
            name="jobbridge_light",
            title="JobBridge on Temporal, light",
            server="temporal",
            unfinished=_ROWS,
        ),
        System(name="temporal_bare", title="Temporal, one activity", kind="temporal", server="temporal"),
        System(name="temporal_five", title="Temporal, five activities", kind="temporal", server="temporal"),
        System(
            name="limit",
            title="bare Postgres",
            kind="limit",
            can=frozenset({BULK}),
            unfinished="SELECT count(*) FROM limit_messages",
        ),
    )
}


def on_temporal(system: System) -> System:
    """Give that system as it runs on Temporal."""
    if system.name != "jobbridge":
        return system
    return replace(system, server="temporal", unfinished=_ROWS)


def _node() -> str | None:
    """Give the node that pg-boss needs: the one installed beside it, else the machine's."""
    beside = NODE_FOLDER / "node_modules" / ".bin" / "node"
    if not (NODE_FOLDER / "node_modules" / "pg-boss").exists():
        return None
    return str(beside) if beside.exists() else shutil.which("node")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one system does one thing: its servers, a database and a ledger of its own."""

    system: System
    servers: Servers
    database_url: str
    ledger_path: Path

    @property
    def task_queue(self) -> str:
        """Temporal's: one for each place, as the database."""
        return self.database_url.rpartition("/")[2]

    def unfinished(self) -> list[int]:
        """Give the number of jobs that are not done, by each of the system's books."""
        if self.system.server == "redis":
            waiting = int(self.servers.redis("LLEN", _QUEUE))
            return [waiting + int(self.servers.redis("HLEN", "unacked"))]
        if self.system.server == "rabbitmq":
            with self.servers.rabbitmq() as channel:
                try:
                    return [int(channel.queue_declare(_QUEUE, passive=True).message_count)]
                except amqp.NotFound:
                    return [0]
        counts = []
        if self.system.server == "temporal":
            is_light = self.system.name == "jobbridge_light"
            counts.append(self.servers.temporal_running(self.task_queue, activities=is_light))
        if self.system.unfinished is None:
            return counts
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return counts + list(connection.execute(self.system.unfinished.encode()).fetchone() or ())

    def clear(self) -> None:
        """Forget what others left in servers that all share; databases are new."""
        if self.system.server == "redis":
            self.servers.redis("FLUSHALL")
        if self.system.server == "rabbitmq":
            with self.servers.rabbitmq() as channel:
                channel.queue_delete(_QUEUE)

    def env(self) -> dict[str, str]:
        """Give the environment of the system's processes."""
        brokers = {"redis": self.servers.redis_url, "rabbitmq": self.servers.rabbitmq_url}
        results = {"redis": self.servers.redis_url, "rabbitmq": "rpc://"}
        sqlalchemy_url = self.database_url.replace("postgresql://", "postgresql+psycopg://")
        settings: dict[str, str | None] = {
            "PYTHONPATH": str(REPOSITORY),
            "DATABASE_URL": self.database_url,
            "JOB_RUNNER_TYPE": "temporal" if self.system.server == "temporal" else "celery",
            "TEMPORAL_ADDRESS": self.servers.temporal.address if self.servers.temporal else None,
            "TEMPORAL_JOB_TASK_QUEUE": self.task_queue,
            "TEMPORAL_LIGHT": "true" if self.system.name == "jobbridge_light" else None,
            "BENCH_SYSTEM": self.system.name,
            "BENCH_LEDGER": str(self.ledger_path),
            "BENCH_DATABASE": self.database_url,
            "BENCH_BROKER": brokers.get(self.system.server, f"sqla+{sqlalchemy_url}"),
            "BENCH_RESULTS": results.get(self.system.server, f"db+{sqlalchemy_url}"),
            "BENCH_NODE_MODULES": str(NODE_FOLDER / "node_modules"),
        }
        return clean_environment(settings)

    def sender(self, step: str, amount: int) -> list[str]:
        """Give the command that sends."""
        if self.system.kind == "pgboss":
            return [*self._pgboss(), step, str(amount)]
        return [self._python(), "-m", "benchmarks.apps.drive", self.system.kind, step, str(amount)]

    def workers(self) -> list[list[str]]:
        """Give the commands that make two jobs run at a time."""
        match self.system.kind:
            case "temporal":
                return [[self._python(), "-m", "benchmarks.apps.temporal_app"]]
            case "celery" if self.system.server == "temporal":
                app = ["-A", "benchmarks.apps.celery_app:app", "-l", "WARNING"]
                worker = [self._python(), "-m", "jobbridge.temporal.worker", *app]
                return [[*worker, "-P", "prefork", "-c", str(CONCURRENCY)]]
            case "celery":
                # No word for each job in the log, for nobody.
                app = ["-A", "benchmarks.apps.celery_app:app", "worker", "-l", "WARNING"]
                return [[self._python(), "-m", "celery", *app, "-P", "prefork", "-c", str(CONCURRENCY)]]
            case "potatoq":
                app = ["-A", "benchmarks.apps.potatoq_app:app", "worker", "-l", "WARNING"]
                return [[self._python(), "-m", "potatoq", *app, "-c", str(CONCURRENCY)]]
            case "procrastinate":
                # One process runs Python on one core: two of them, as the others have.
                app = ["-a", "benchmarks.apps.procrastinate_app.app", "worker", "--concurrency", "1"]
                return [[self._python(), "-m", "procrastinate", *app]] * CONCURRENCY
            case "pgboss":
                return [[*self._pgboss(), "work", "0"]]
            case _:
                raise AssertionError(f"{self.system.name} has no worker")

    def _python(self) -> str:
        return sys.executable if self.system.runs_here else str(PEERS_PYTHON)

    @staticmethod
    def _pgboss() -> list[str]:
        return [str(_node()), str(Path(__file__).with_name("apps") / "pgboss.mjs")]
