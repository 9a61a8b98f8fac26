"""`jobbridge dev`: everything that a developer needs, in one terminal, until Ctrl-C.

Servers first (Postgres, Temporal, a mail sink), then the tables, then who works on them (celery worker, beat, Temporal
worker) and the dashboard. They stop in the reverse order, within ten seconds. A worker that dies is reported and not
restarted: whoever develops it wants to read why; the others go on. When a server dies, nothing can go on, and all stop.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from jobbridge.dev import workers
from jobbridge.dev.mail import run_mail_sink
from jobbridge.dev.postgres import run_postgres
from jobbridge.dev.process import DevServerError, ManagedProcess, free_port, is_port_free, stop_together
from jobbridge.dev.temporal import run_temporal

POSTGRES_PORT = 54329
TEMPORAL_PORT = 7233
TEMPORAL_UI_PORT = 8233
MAIL_PORT = 2525
DASHBOARD_PORT = 8484

_LOOK_EVERY_SECONDS = 0.1
_PORTS_TRIED = 50


@dataclass(frozen=True, kw_only=True)
class DevOptions:
    """What to start, and where.

    Attributes:
        folder: Where data, logs and `dev.json` are.
        app: Celery's `-A`.
        database_url: A database of the developer's own, instead of an embedded Postgres.
        temporal_address: A Temporal of the developer's own.
        smtp_url: A mail server of the developer's own.
        postgres_port: Exactly this one (0: any); None: the usual one, or the next that is free. The others likewise.
        concurrency: Of each worker.
        with_temporal: Also Temporal and its worker.
        with_dashboard: Also the dashboard.
    """

    folder: Path = Path(".jobbridge")
    app: str = "jobbridge"
    database_url: str | None = None
    temporal_address: str | None = None
    smtp_url: str | None = None
    postgres_port: int | None = None
    temporal_port: int | None = None
    temporal_ui_port: int | None = None
    dashboard_port: int | None = None
    concurrency: int = 2
    with_temporal: bool = True
    with_dashboard: bool = True


@dataclass(frozen=True, kw_only=True)
class Member:
    """One line of the table."""

    name: str
    address: str
    process: ManagedProcess | None = None
    is_server: bool = False


@dataclass
class Supervisor:
    """The running whole.

    Args:
        options: What to start.
        migrate: Brings a database up to date.
        tell: Called with each thing that a developer should read.
        show_log: Called with a member's name and a line of its output.
    """

    options: DevOptions
    migrate: Callable[[str], object]
    tell: Callable[[str], None]
    show_log: Callable[[str, str], None]
    members: list[Member] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)
    dashboard_url: str = field(default="", init=False)
    dashboard_port: int = field(default=0, init=False)
    _stop: threading.Event = field(default_factory=threading.Event)
    _is_starting: bool = True

    def run(self, when_up: Callable[[], None]) -> int:
        """Start all, call `when_up`, and stay until a signal comes or a server dies.

        Returns:
            The exit status: 0, or 1 when a member died.
        """
        with self._stopped_by_signals(), ExitStack() as stack:
            try:
                self._start(stack)
            except KeyboardInterrupt:
                self.tell("Stopping before everything was up …")
                return 130
            self._is_starting = False
            when_up()
            died = self._watch()
            self.tell("Stopping …")
        self.tell("Everything has stopped.")
        return 1 if died else 0

    def _start(self, stack: ExitStack) -> None:
        self.options.folder.mkdir(parents=True, exist_ok=True)
        (self.options.folder / ".gitignore").write_text("*\n")
        self._start_postgres(stack)
        if self.options.with_temporal:
            self._start_temporal(stack)
        self._start_mail(stack)
        self._prepare_links()
        self.tell("Migrating the database …")
        self.migrate(self.settings["DATABASE_URL"])
        # After the workers; neither server needs the other, so that the two grace periods are one.
        stack.callback(stop_together, [m.process for m in self.members if m.process is not None])
        stack.enter_context(_published(self.options.folder / "dev.json", self.settings))
        self._start_workers(stack)

    def _start_postgres(self, stack: ExitStack) -> None:
        if self.options.database_url is not None:
            self.settings["DATABASE_URL"] = self.options.database_url
            self.members.append(Member(name="Postgres", address="yours (DATABASE_URL)", is_server=True))
            return
        self.tell("Starting Postgres …")
        port = self._choose_port("Postgres", self.options.postgres_port, POSTGRES_PORT)
        server = stack.enter_context(run_postgres(self.options.folder / "postgres", port=port))
        self.settings["DATABASE_URL"] = url = server.create_database("jobbridge")
        self.members.append(Member(name="Postgres", address=url, process=server.process, is_server=True))

    def _start_temporal(self, stack: ExitStack) -> None:
        if self.options.temporal_address is not None:
            self.settings["TEMPORAL_ADDRESS"] = self.options.temporal_address
            self.members.append(Member(name="Temporal", address="yours (TEMPORAL_ADDRESS)", is_server=True))
            return
        self.tell("Starting Temporal …")
        port = self._choose_port("Temporal", self.options.temporal_port, TEMPORAL_PORT)
        ui_port = self._choose_port("Temporal's web UI", self.options.temporal_ui_port, TEMPORAL_UI_PORT)
        folder = self.options.folder
        server = stack.enter_context(
            run_temporal(
                log_path=folder / "temporal.log",
                port=port,
                ui_port=ui_port,
                has_ui=True,
                database=folder / "temporal.db",
            )
        )
        self.settings["TEMPORAL_ADDRESS"] = server.address
        if server.ui_url is not None:
            self.settings["TEMPORAL_UI_URL"] = server.ui_url
        address = f"{server.address}   web UI {server.ui_url}"
        self.members.append(Member(name="Temporal", address=address, process=server.process, is_server=True))

    def _start_mail(self, stack: ExitStack) -> None:
        if self.options.smtp_url is not None:
            return
        port = self._choose_port("mail", None, MAIL_PORT)
        folder = self.options.folder / "mail"
        try:
            sink = stack.enter_context(run_mail_sink(folder, port=port))
        except DevServerError:
            if port is None:
                raise
            sink = stack.enter_context(run_mail_sink(folder))  # somebody took that port in between
        self.settings["SMTP_URL"] = sink.url
        self.members.append(Member(name="mail sink", address=f"{sink.url}   writes to {sink.folder}"))

    def _prepare_links(self) -> None:
        """Have workers sign links that the dashboard knows, also after the next start."""
        if not os.environ.get("JOBBRIDGE_SECRET_KEY_FILE"):
            path = (self.options.folder / "secret-key").absolute()
            if not path.exists():
                path.touch(mode=0o600)
                path.write_text(secrets.token_urlsafe(32) + "\n")
            self.settings["JOBBRIDGE_SECRET_KEY_FILE"] = str(path)
        if not self.options.with_dashboard:
            return
        port = self._choose_port("the dashboard", self.options.dashboard_port, DASHBOARD_PORT)
        self.dashboard_port = port or free_port()
        self.dashboard_url = f"http://127.0.0.1:{self.dashboard_port}/"
        if not os.environ.get("JOBBRIDGE_DASHBOARD_URL"):
            self.settings["JOBBRIDGE_DASHBOARD_URL"] = self.dashboard_url

    def _start_workers(self, stack: ExitStack) -> None:
        self.tell("Starting the workers …")
        options, logs = self.options, self.options.folder / "logs"
        env = workers.child_environment(self.settings)
        worker = workers.celery_worker(
            options.app, log_path=logs / "celery-worker.log", env=env, concurrency=options.concurrency
        )
        beat = workers.celery_beat(
            options.app,
            log_path=logs / "celery-beat.log",
            env=env,
            schedule_path=options.folder / "celerybeat-schedule",
        )
        serving = [worker]
        if options.with_temporal:
            serving.append(
                workers.temporal_worker(
                    options.app,
                    log_path=logs / "temporal-worker.log",
                    env=env,
                    concurrency=options.concurrency,
                )
            )
        members = [(process, f"-A {options.app}") for process in (*serving, beat)]
        if options.with_dashboard:
            serving.append(dashboard := self._dashboard(env))
            members.append((dashboard, self.dashboard_url))
        stack.callback(stop_together, [process for process, _ in members])
        for process, address in members:
            process.start()
            self.members.append(Member(name=process.name, address=address, process=process))
        workers.wait_until_ready(serving)

    def _dashboard(self, env: Mapping[str, str]) -> ManagedProcess:
        options = self.options
        return workers.dashboard(
            options.app,
            log_path=options.folder / "logs" / "dashboard.log",
            env=env,
            port=self.dashboard_port,
        )

    def _choose_port(self, name: str, wanted: int | None, usual: int) -> int | None:
        """Give a port to listen on; None: any.

        Raises:
            DevServerError: The port that was asked for is taken.
        """
        if wanted is not None:
            if wanted and not is_port_free(wanted):
                raise DevServerError(
                    f"Port {wanted}, which was asked for {name}, is taken.",
                    hint="Stop what listens there, choose another port, or leave the option away.",
                )
            return wanted or None
        for port in range(usual, usual + _PORTS_TRIED):
            if is_port_free(port):
                if port != usual:
                    self.tell(f"Port {usual} is taken: {name} listens on {port}.")
                return port
        return None

    def _watch(self) -> bool:
        """Pass on the logs until it is time to stop; tell whether somebody died."""
        followed = {
            member.name: _Follower(member.process.log_path) for member in self._workers() if member.process
        }
        dead: set[str] = set()
        while not self._stop.wait(_LOOK_EVERY_SECONDS):
            for name, follower in followed.items():
                for line in follower.new_lines():
                    self.show_log(name, line)
            for member in self.members:
                if member.name not in dead and member.process is not None and not member.process.is_running:
                    dead.add(member.name)
                    self._report_death(member)
            if any(member.is_server and member.name in dead for member in self.members):
                break
        return bool(dead)

    def _workers(self) -> list[Member]:
        return [member for member in self.members if not member.is_server]

    def _report_death(self, member: Member) -> None:
        assert member.process is not None
        code = member.process.exit_code or 0
        how = (
            f"was ended by {signal.Signals(code - 128).name}"
            if code > 128
            else f"ended with exit code {code}"
        )
        next_step = (
            "Nothing can go on without it." if member.is_server else "The others go on; Ctrl-C stops them."
        )
        self.tell(f"DIED: {member.name} {how}. {next_step} Its last lines:\n{member.process.tail(8)}")

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        def on_signal(number: int, frame: object) -> None:
            if self._stop.is_set():
                return  # already stopping, which has its own deadline
            self._stop.set()
            if self._is_starting:
                raise KeyboardInterrupt

        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _published(path: Path, settings: Mapping[str, str]) -> Iterator[None]:
    """Let commands in other terminals find these servers (jobbridge.settings reads the file)."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)  # the database's password is in it
    # Killed, we leave it behind: by the number of our process others see that it is stale.
    path.write_text(json.dumps({"pid": os.getpid(), **settings}, indent=2) + "\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@dataclass
class _Follower:
    """Reads what was added to a file."""

    path: Path
    _position: int = 0
    _rest: str = ""

    def new_lines(self) -> list[str]:
        with self.path.open(errors="replace", newline="") as file:
            file.seek(self._position)
            text = self._rest + file.read()
            self._position = file.tell()
        *lines, self._rest = text.split("\n")
        return lines
