"""`jobbridge demo`: twelve handlers, and a job that waits for a person, on real servers, which end with it.

Only the calendars' are imitations.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobbridge.cli.common import console, seconds_between
from jobbridge.cli.dashboard import missing_packages
from jobbridge.cli.demo_view import DemoView, differences, show_dashboard, show_end
from jobbridge.cli.failures import FAILED
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.dev import workers
from jobbridge.dev.calendars import calendar_services
from jobbridge.dev.mail import MailSink, run_mail_sink
from jobbridge.dev.postgres import run_postgres
from jobbridge.dev.process import ManagedProcess, free_port, is_port_free, stop_together
from jobbridge.dev.temporal import run_temporal

if TYPE_CHECKING:
    from uuid import UUID

    from jobbridge.app.application import Celery
    from jobbridge.store.jobs.rows import JobRow

DASHBOARD_PORT = 8484

#: One tenant for each engine: both bill the same clients, and neither sees the other's rows.
TENANTS = {
    Engine.CELERY: "c0000000-0000-4000-8000-000000000001",
    Engine.TEMPORAL: "e0000000-0000-4000-8000-000000000001",
}


@dataclass(frozen=True, kw_only=True)
class EngineRun:
    """What one engine did."""

    engine: Engine
    jobs: Sequence[JobRow]
    documents: Sequence[Path]
    mails: Sequence[Path]


@click.command("demo")
@click.option(
    "--engine", type=click.Choice(["celery", "temporal", "both"]), default="both", show_default=True
)
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=Path("build/demo"),
              show_default=True, help="Where documents, mails and logs are written.")  # fmt: skip
@click.option("--serve/--no-serve", default=None,
              help="Keep all running at the end, and serve the dashboard, until Ctrl-C.  "
              "[default: at a terminal]")  # fmt: skip
@click.option(
    "--dashboard-port", type=click.IntRange(0, 65535), help=f"By default {DASHBOARD_PORT} if it is free."
)
def command(engine: str, output: Path, serve: bool | None, dashboard_port: int | None) -> int:
    """Run the twelve handlers on one engine or on both: bill, mail, import devices, renew calendars, do what is due.

    Starts a Postgres, a Temporal, workers, the dashboard, a mail server and two calendar services of its own, and stops
    them at the end; at a terminal only after Ctrl-C, so that the jobs can be looked at. The exit code is 0 when every
    job completed and both engines made the same documents.
    """
    engines = list(Engine) if engine == "both" else [Engine(engine)]
    began = time.monotonic()
    out = console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as after Ctrl-C: stop all, leave no data
    stays = _is_watched() if serve is None else serve
    _clear(output)
    with open_stage(output, engines, out.print, stays=stays, port=dashboard_port) as stage:
        runs = [stage.run(engine) for engine in engines]
        wrong = _problems(runs)
        _write_summary(output / "summary.json", runs)
        if stays:
            show_end(out, runs, output / "summary.json", wrong, time.monotonic() - began)
            stage.stay()
    if not stays:
        show_dashboard(out, "To look at the jobs in the dashboard: jobbridge demo --serve")
        show_end(out, runs, output / "summary.json", wrong, time.monotonic() - began)
    return FAILED if wrong else 0


def _is_watched() -> bool:
    """Tell whether somebody sits there who can press Ctrl-C."""
    return sys.stdin.isatty() and sys.stdout.isatty() and not os.environ.get("CI")


def _clear(output: Path) -> None:
    """Remove what an earlier demo made, and nothing else."""
    for name in ("mail", "logs", *(engine.value for engine in Engine)):
        shutil.rmtree(output / name, ignore_errors=True)
    (output / "summary.json").unlink(missing_ok=True)
    output.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Servers and workers that are up."""

    output: Path
    app: Celery
    sinks: dict[Engine, MailSink]
    dashboard: ManagedProcess | None
    dashboard_url: str

    def run(self, engine: Engine) -> EngineRun:
        from jobbridge.handlers.approval import run_approval
        from jobbridge.handlers.demo import run_scenario

        folder, tenant = self.output / engine.value, TENANTS[engine]
        with DemoView(console(), engine) as view:
            job_ids, documents = run_scenario(self.app, engine, tenant, folder, view.update)
            job_ids.append(
                run_approval(
                    self.app, engine, tenant, "2026-10", lambda new: view.update(self._rows([*job_ids, new]))
                )
            )
        rows = self._rows(job_ids)
        return EngineRun(engine=engine, jobs=rows, documents=documents, mails=self.sinks[engine].paths())

    def _rows(self, job_ids: Sequence[UUID]) -> list[JobRow]:
        return [row for job_id in job_ids if (row := self.app.jobs.find(job_id)) is not None]

    def stay(self) -> None:
        """Serve the dashboard until Ctrl-C, with more to see than jobs that went well."""
        from jobbridge.handlers.approval import send_approval
        from jobbridge.handlers.showcase import send_more

        if self.dashboard is None:
            return
        for engine in self.sinks:
            send_more(self.app, engine, TENANTS[engine])
            send_approval(self.app, engine, TENANTS[engine], "2026-11")
        workers.wait_until_ready([self.dashboard])
        with suppress(KeyboardInterrupt):
            show_dashboard(console(), f"Dashboard: {self.dashboard_url}   Ctrl-C stops everything.")
            self.dashboard.wait(timedelta.max)
        show_dashboard(console(), "Stopping …")


@contextmanager
def open_stage(
    output: Path, engines: Sequence[Engine], tell: Any, *, stays: bool, port: int | None
) -> Iterator[Stage]:
    """Start everything, and stop it at the end.

    Args:
        output: Where documents, mails and logs are written.
        tell: Called with each thing that one should read.
        stays: Also what only a dashboard needs: beat, and Temporal's web UI.
        port: Of the dashboard; by default the usual one if it is free.
    """
    from jobbridge.handlers.demo_app import make_demo_app
    from jobbridge.settings import load_settings
    from jobbridge.store.schema.migrate import migrate

    with ExitStack() as stack:
        tell("Starting Postgres …")
        server = stack.enter_context(run_postgres(output / "postgres", is_durable=False))
        settings = _settings(server.create_database("demo"))
        migrate(settings["DATABASE_URL"])
        if Engine.TEMPORAL in engines:
            tell("Starting Temporal …")
            temporal = stack.enter_context(
                run_temporal(log_path=output / "logs" / "temporal.log", has_ui=stays)
            )
            settings["TEMPORAL_ADDRESS"] = temporal.address
            settings["JOB_RUNNER_TYPE"] = Engine.TEMPORAL.value  # as the enterprise edition says
            if temporal.ui_url is not None:
                settings["TEMPORAL_UI_URL"] = temporal.ui_url
        # A sink for each engine, so that it can be told which of them sent a mail.
        sinks = {
            engine: stack.enter_context(run_mail_sink(output / "mail" / engine.value)) for engine in engines
        }
        settings |= stack.enter_context(calendar_services())
        tell("Starting the workers …")
        started = [_worker(engine, output, {**settings, "SMTP_URL": sinks[engine].url}) for engine in engines]
        serving = list(started)
        if stays:
            started.append(_beat(output, settings))
        stack.callback(stop_together, started)
        for process in started:
            process.start()
        workers.wait_until_ready(serving)
        dashboard, url = _start_dashboard(output, settings, port, tell)
        if dashboard is not None:
            stack.callback(dashboard.stop)
        yield Stage(
            output=output,
            app=make_demo_app(load_settings(settings)),
            sinks=sinks,
            dashboard=dashboard,
            dashboard_url=url,
        )


def _start_dashboard(
    output: Path, settings: dict[str, str], port: int | None, tell: Any
) -> tuple[ManagedProcess | None, str]:
    """Start it, and do not wait: it is up before the first jobs have ended."""
    if missing := missing_packages():
        tell(
            f"Without the dashboard: {', '.join(missing)} is not installed (pip install 'jobbridge[dashboard]')."
        )
        return None, ""
    if port is None and is_port_free(DASHBOARD_PORT):
        port = DASHBOARD_PORT
    port = port or free_port()
    url = f"http://127.0.0.1:{port}/"
    env = workers.child_environment(settings)
    tell(f"Dashboard, while this runs: {url}")
    return workers.dashboard(
        "jobbridge", log_path=output / "logs" / "dashboard.log", env=env, port=port
    ).start(), url


def _settings(database_url: str) -> dict[str, str]:
    # All of them, so that what the caller has set for other purposes does not reach the demo.
    return {
        "DATABASE_URL": database_url,
        "JOBBRIDGE_SCHEMA": "public",
        "EDITION": "enterprise",  # one of the twelve is in that edition only
        "JOB_RUNNER_TYPE": "celery",
        "JOB_RUNNER_FALLBACK_TO_CELERY": "false",  # what says temporal in the table must have run there
        "TEMPORAL_NAMESPACE": "default",
        "TEMPORAL_JOB_TASK_QUEUE": "alga-jobs",
        "TEMPORAL_TLS": "false",
        "MAIL_FROM": "billing@demo.example",
        "JOBBRIDGE_SECRET_KEY": secrets.token_urlsafe(32),  # which links are signed with
    }


def _worker(engine: Engine, output: Path, settings: dict[str, str]) -> ManagedProcess:
    make = workers.celery_worker if engine is Engine.CELERY else workers.temporal_worker
    log_path = output / "logs" / f"{engine.value}-worker.log"
    return make(
        "jobbridge.handlers.demo_app:app",
        log_path=log_path,
        env=workers.child_environment(settings),
        concurrency=2,
    )


def _beat(output: Path, settings: dict[str, str]) -> ManagedProcess:
    return workers.celery_beat(
        "jobbridge",
        log_path=output / "logs" / "celery-beat.log",
        env=workers.child_environment(settings),
        schedule_path=output / "logs" / "celerybeat-schedule",
    )


def _problems(runs: Sequence[EngineRun]) -> list[str]:
    wrong = [
        f"{row.type} on {run.engine.value} is {row.status.value}: {row.error or 'no error was kept'}"
        for run in runs
        for row in run.jobs
        if row.status is not JobStatus.COMPLETED
    ]
    wrong += [f"{run.engine.value} made no {what}" for run in runs for what in _missing(run)]
    if len(runs) == 2 and not wrong:
        wrong += differences(runs[0].documents, runs[1].documents)
        wrong += differences(runs[0].mails, runs[1].mails)
    return wrong


def _missing(run: EngineRun) -> list[str]:
    suffixes = {path.suffix for path in (*run.documents, *run.mails)}
    return [
        what
        for suffix, what in ((".pdf", "PDF"), (".zip", "ZIP"), (".csv", "report"), (".eml", "mail"))
        if suffix not in suffixes
    ]


def _write_summary(path: Path, runs: Sequence[EngineRun]) -> None:
    summary = {
        "jobs": [
            {
                "type": row.type,
                "runner_type": row.runner_type.value,
                "status": row.status.value,
                "attempts": row.attempt,
                "seconds": seconds_between(row.started_at, row.completed_at),
                "job_id": str(row.job_id),
                "external_id": row.external_id,
            }
            for run in runs
            for row in run.jobs
        ],
        "documents": [str(path) for run in runs for path in (*run.documents, *run.mails)],
    }
    path.write_text(json.dumps(summary, indent=2) + "\n")
