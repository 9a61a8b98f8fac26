"""Servers, an app under rules, and workers that can be killed: what `tests.bench.rules` measures on."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg

from jobbridge.core.keys import Engine
from jobbridge.dev.postgres import run_postgres
from jobbridge.dev.process import ManagedProcess
from jobbridge.dev.temporal import run_temporal
from jobbridge.settings import load_settings
from jobbridge.store.schema.migrate import migrate
from tests.bench.rules_apps import make_app
from tests.support import clean_environment


@dataclass
class Fleet:
    """Servers, an app, and workers that can be killed."""

    app: Any
    url: str
    engine: Engine
    environment: dict[str, str]
    folder: Path
    workers: list[ManagedProcess] = field(default_factory=list)
    started: int = 0

    def start(self, processes: int = 2, queue: str | None = None) -> None:
        self.started += 1
        module = "jobbridge.temporal.worker" if self.engine is Engine.TEMPORAL else "celery"
        arguments = ["-m", module, "-A", "tests.bench.rules_apps:app"]
        if self.engine is Engine.CELERY:
            arguments.append("worker")
        if queue is not None:
            arguments += ["-Q", queue]
        name = f"w{self.started}"
        self.workers.append(
            ManagedProcess(
                name=name,
                argv=[
                    sys.executable,
                    *arguments,
                    "-c",
                    str(processes),
                    "-n",
                    f"{name}@bench",
                    "-l",
                    "WARNING",
                ],
                log_path=self.folder / f"{name}.log",
                env=clean_environment(self.environment),
            ).start()
        )

    def send(self, name: str, jobs: int) -> None:
        """Send so many jobs, 500 in a transaction."""
        with psycopg.connect(self.url) as connection:
            for begin in range(0, jobs, 500):
                with self.app.enqueue_on(connection):
                    for _ in range(begin, min(begin + 500, jobs)):
                        self.app.tasks[name].delay()
                connection.commit()

    def kill_one(self, chance: random.Random) -> None:
        self.workers.pop(chance.randrange(len(self.workers))).kill()

    def one(self, statement: str, **values: object) -> Any:
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(statement.encode(), values or None).fetchone()
        assert row is not None
        return row[0]

    def rows(self, statement: str, **values: object) -> list[Any]:
        """Give the first column."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            return [row[0] for row in connection.execute(statement.encode(), values or None).fetchall()]

    def left(self) -> int:
        return int(self.one("SELECT count(*) FROM jobs WHERE completed_at IS NULL"))


@contextmanager
def fleet(engine: Engine) -> Iterator[Fleet]:
    with TemporaryDirectory(prefix="jobbridge-rules-") as name, ExitStack() as servers:
        folder = Path(name)
        postgres = servers.enter_context(run_postgres(folder / "postgres"))
        folder.chmod(0o755)
        url = postgres.create_database("rules")
        migrate(url)
        environment = {"DATABASE_URL": url, "JOB_RUNNER_TYPE": engine.value}
        if engine is Engine.TEMPORAL:
            temporal = servers.enter_context(run_temporal(log_path=folder / "temporal.log"))
            environment |= {"TEMPORAL_ADDRESS": temporal.address}
        app = make_app(settings=load_settings(environment))
        app.finalize()
        made = Fleet(app=app, url=url, engine=engine, environment=environment, folder=folder)
        try:
            yield made
        finally:
            for worker in made.workers:
                worker.kill()
            app.database.close()
            app.close()
