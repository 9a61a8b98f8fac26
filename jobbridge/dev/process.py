"""A server or worker that we started, which ends with us at the latest."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from jobbridge.errors import JobBridgeError

_KEEPER = Path(__file__).with_name("keeper.py")


class DevServerError(JobBridgeError):
    """A server or worker for development could not be started, or ended by itself."""

    hint = "Read its log, or run `jobbridge dev` again."


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """The system account that a process runs under."""

    uid: int
    gid: int


@dataclass(kw_only=True)
class ManagedProcess:
    """One command, its output in a file, stopped at `stop()`, or when this process ends in whatever way.

    Args:
        name: How it is called in messages.
        argv: The command.
        log_path: Where its output goes; made anew at each start.
        env: Its whole environment; ours by default.
        cwd: Its working folder; ours by default.
        stop_signal: What asks it to stop.
        grace: How long it may take before it is killed with its children.
        account: Run as this account (only root can).
    """

    name: str
    argv: Sequence[str]
    log_path: Path
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace: timedelta = timedelta(seconds=8)
    account: Account | None = None
    pid: int = field(default=0, init=False)
    _keeper: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> Self:
        """Start it, and return when it runs (which does not mean that it is ready).

        Raises:
            DevServerError: The command cannot be started.
        """
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        report_read, report_write = os.pipe()
        with self.log_path.open("wb") as log, os.fdopen(report_read, "rb") as report:
            try:
                self._keeper = subprocess.Popen(
                    self._keeper_argv(report_write),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=None if self.env is None else dict(self.env),
                    cwd=self.cwd,
                    pass_fds=[report_write],
                    start_new_session=True,
                )
            finally:
                os.close(report_write)
            self._read_report(report.readline().decode())
        return self

    def _keeper_argv(self, report: int) -> list[str]:
        options = ["--report", str(report), "--signal", str(int(self.stop_signal))]
        options += ["--grace", str(self.grace.total_seconds())]
        if self.account is not None:
            options += ["--uid", str(self.account.uid), "--gid", str(self.account.gid)]
        return [sys.executable, "-I", "-S", str(_KEEPER), *options, "--", *self.argv]

    def _read_report(self, line: str) -> None:
        word, _, rest = line.strip().partition(" ")
        if word == "pid":
            self.pid = int(rest)
            return
        self.stop()
        raise DevServerError(f"{self.name} cannot be started: {rest or self.tail() or 'its keeper died'}")

    @property
    def is_running(self) -> bool:
        return self._keeper is not None and self._keeper.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Its exit status (128 + signal when a signal ended it), or None while it runs or before it was started."""
        return None if self._keeper is None else self._keeper.poll()

    def ask_to_stop(self) -> None:
        """Send it its stop signal, and SIGKILL when the grace period is over; do not wait."""
        if self._keeper is not None and self._keeper.stdin is not None:
            self._keeper.stdin.close()

    def stop(self) -> None:
        """Stop it and wait until it is gone. Does nothing if it is not running."""
        if self._keeper is None:
            return
        self.ask_to_stop()
        try:
            self._keeper.wait(timeout=self.grace.total_seconds() + 5)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()

    def kill(self) -> None:
        """End it with SIGKILL and wait until it is gone, as a crash would."""
        if self.is_running:
            os.kill(self.pid, signal.SIGKILL)
        if self._keeper is not None:
            self._keeper.wait(timeout=10)
            self.ask_to_stop()

    def wait(self, timeout: timedelta) -> int:
        """Wait until it ends by itself.

        Raises:
            DevServerError: It still runs after that time.
        """
        deadline = time.monotonic() + timeout.total_seconds()
        while (code := self.exit_code) is None:
            if time.monotonic() > deadline:
                raise DevServerError(f"{self.name} still runs after {timeout.total_seconds():g} s.")
            time.sleep(0.02)
        return code

    def log(self) -> str:
        try:
            return self.log_path.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def tail(self, lines: int = 15) -> str:
        """Give the last lines of its output."""
        return "\n".join(self.log().splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self if self._keeper is not None else self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def free_port() -> int:
    """Find a TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_port_free(port: int) -> bool:
    """Tell whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        # As servers do: a connection in TIME_WAIT does not keep the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def stop_together(processes: Sequence[ManagedProcess]) -> None:
    """Ask all to stop, then wait for each: their times of grace are one."""
    for process in processes:
        process.ask_to_stop()
    for process in processes:
        process.stop()
