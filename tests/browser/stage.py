"""What the browser looks at: one database, a worker of each engine, and the dashboard as a server of its own."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psycopg
from psycopg.rows import dict_row

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.core.keys import Engine, TenantId, job_id_for
from jobbridge.dashboard.access.identity import COOKIE, Authenticator
from jobbridge.dashboard.access.signing import keys_of
from jobbridge.dashboard.application import make_dashboard
from jobbridge.dev.process import free_port
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from tests.conftest import worker_starter
from tests.parity.tasks import make_app
from tests.support import clean_environment, wait_until, worker_process

ACME, GLOBEX = TenantId("acme"), TenantId("globex")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Everything that runs."""

    database_url: str
    app: Celery
    folder: Path
    url: str
    environment: Mapping[str, str]

    def path(self, name: str, *, query: dict[str, Any] | None = None, **params: Any) -> str:
        """Give the address of a page by its route's name."""
        path = self.url + str(_routes(self.app).url_path_for(name, **params))
        return f"{path}?{urlencode(query, doseq=True)}" if query else path

    def cookie(self, role: Role, tenant: TenantId | None = None) -> dict[str, Any]:
        """Sign somebody in, and give their browser's cookie."""
        access = AccessStore(self.app.database)
        token, _ = access.create(f"{role}-{uuid.uuid4().hex[:6]}", role, tenant=tenant)
        value = Authenticator(access, keys_of(self.app.settings)).sign_in(token)
        assert value is not None
        return {"name": COOKIE, "value": value, "url": self.url}

    def send(self, name: str, data: Any = None, *, engine: Engine, tenant: str = ACME, **options: Any) -> str:
        """Send a job, and give its id."""
        handle = self.app.enqueue(f"shop.{name}", data, engine=engine, tenant=tenant, **options)
        return str(handle.job_id)

    def rows(self, where: str = "true", *values: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.database_url, row_factory=dict_row) as connection:
            return connection.execute(
                f"SELECT * FROM jobs WHERE {where} ORDER BY created_at", values
            ).fetchall()

    def row(self, job_id: str) -> dict[str, Any]:
        [row] = self.rows("job_id = %s", job_id_for(job_id))
        return row

    def wait_for(self, job_id: str, *statuses: str) -> dict[str, Any]:
        def reached() -> dict[str, Any]:
            row = self.row(job_id)
            assert row["status"] in statuses, {name: row[name] for name in ("type", "status", "error")}
            return row

        return wait_until(reached, message=f"status {statuses}")

    def tell(self, job_id: str, progress: int) -> None:
        """Have a job `shop.report` say that it is so far."""
        self._write(job_id, "progress", str(progress))

    def release(self, job_id: str) -> None:
        """Have a job `shop.report` end."""
        self._write(job_id, "go", "")

    def _write(self, job_id: str, name: str, text: str) -> None:
        (self.folder / job_id).mkdir(exist_ok=True)
        (self.folder / job_id / f"{name}.new").write_text(text)
        (self.folder / job_id / f"{name}.new").rename(self.folder / job_id / name)


@functools.cache
def _routes(app: Celery) -> Any:
    return make_dashboard(app).state.dashboard.router


@contextmanager
def run_stage(
    database_url: str,
    temporal_address: str,
    folder: Path,
    arguments: Sequence[str] = (),
    *,
    workers: Sequence[str] = ("celery worker", "temporal worker"),
) -> Iterator[Stage]:
    """Run the workers and the dashboard until the block ends."""
    notes = folder / "notes"
    notes.mkdir()
    environment = {
        "DATABASE_URL": database_url,
        "PARITY_FOLDER": str(notes),
        "TEMPORAL_ADDRESS": temporal_address,
        "TEMPORAL_JOB_TASK_QUEUE": f"browser-{uuid.uuid4().hex[:8]}",
        "TEMPORAL_UI_URL": "http://127.0.0.1:8233",
        "JOBBRIDGE_SECRET_KEY": uuid.uuid4().hex,
    }
    port = free_port()
    app = make_app(settings=load_settings(environment), include=["tests.browser.app"])
    app.finalize()
    with ExitStack() as started:
        started.callback(app.database.close)
        started.callback(app.close)
        for kind in workers:
            start = worker_starter(started, folder, kind)
            start("tests.browser.app", "-P", "threads", "-c", "6", **environment)
        options = ["--port", str(port), "--no-access-log", "-A", "tests.browser.app", *arguments]
        started.enter_context(
            worker_process(
                ["-m", "jobbridge.cli", "dashboard", *options],
                name="dashboard",
                log_path=folder / "dashboard.log",
                env=clean_environment(environment),
                ready="Uvicorn running on",
            )
        )
        yield Stage(
            database_url=database_url,
            app=app,
            folder=notes,
            url=f"http://127.0.0.1:{port}",
            environment=environment,
        )
