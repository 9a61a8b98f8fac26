"""Programs that the fork server of this run forks, and what else starts them where it cannot.

`Forked` is to it what `subprocess.Popen` is to a new process, `ForkedProcess` what `ManagedProcess` is, and
`run_python` what `subprocess.run` is.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Self

from jobbridge.dev.process import DevServerError, ManagedProcess

_REPOSITORY = Path(__file__).resolve().parents[1]
#: Where the fork server of this run listens: set by the process that started it, and found by xdist's others.
ADDRESS = "TESTS_FORK_SERVER"


class CannotBeForked(Exception):
    """The program wants to be a new process: it is to see another value of something that is read at import."""


@contextmanager
def fork_server(environment: Mapping[str, str]) -> Iterator[None]:
    """Run one until the block ends; it imports nothing until it is first asked for something."""
    folder = Path(tempfile.mkdtemp(prefix="jobbridge-test-fork-"))
    address = str(folder / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.fork_server", str(listener.fileno())],
            stdin=subprocess.PIPE,
            cwd=_REPOSITORY,
            env=environment,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    before = os.environ.get(ADDRESS)
    os.environ[ADDRESS] = address
    try:
        yield
    finally:
        os.environ.pop(ADDRESS)
        if before is not None:
            os.environ[ADDRESS] = before
        assert server.stdin is not None
        server.stdin.close()
        server.wait(timeout=10)
        shutil.rmtree(folder, ignore_errors=True)


class Forked:
    """A program that was forked: `python -m MODULE ARGUMENTS…` or `python -c PROGRAM ARGUMENTS…`.

    Args:
        argv: What follows `python`.
        env: Its whole environment.
        output: Where its standard output goes, and its errors unless `errors` is given.
        stdin: Its standard input; empty by default.
        grace: How long it may take after its stop signal, in seconds; then its process group is killed.
        takes_its_group_along: Whether its process group is killed when it has ended.

    Raises:
        CannotBeForked: Start it afresh.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        output: IO[Any],
        errors: IO[Any] | None = None,
        stdin: IO[Any] | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace: float = 8.0,
        takes_its_group_along: bool = True,
    ) -> None:
        if argv[0] not in {"-m", "-c"} or ADDRESS not in os.environ:
            raise CannotBeForked(" ".join(argv))
        self.returncode: int | None = None
        self._said = b""
        program = {
            "kind": argv[0],
            "code": argv[1],
            "arguments": list(argv[2:]),
            "env": dict(env),
            "cwd": str(cwd or Path.cwd()),
            "stop_signal": int(stop_signal),
            "grace": grace,
            "takes_its_group_along": takes_its_group_along,
        }
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(os.environ[ADDRESS])
        with Path(os.devnull).open("rb") as nothing:
            text = json.dumps(program).encode()
            files = [(stdin or nothing).fileno(), output.fileno(), (errors or output).fileno()]
            socket.send_fds(self._connection, [f"{len(text):08x}".encode()], files)
            self._connection.sendall(text)
        word, _, rest = self._read_line().partition(" ")
        if word != "pid":
            self._connection.close()
            raise CannotBeForked(rest)
        self.pid = int(rest)

    def _read_line(self, timeout: float | None = None) -> str:
        """Give the next line of the server's; "" if there is none yet."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._said:
            self._connection.settimeout(None if deadline is None else max(0.0, deadline - time.monotonic()))
            try:
                more = self._connection.recv(256)
            except (BlockingIOError, TimeoutError):
                return ""
            if not more:
                raise DevServerError("The fork server of the tests has ended; its words are above.")
            self._said += more
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()

    def _listen(self, timeout: float | None) -> int | None:
        if self.returncode is None and (line := self._read_line(timeout)):
            self.returncode = int(line.removeprefix("exit "))
            self._connection.close()
        return self.returncode

    def poll(self) -> int | None:
        """Give its exit code (minus the signal that ended it), or None while it runs."""
        return self._listen(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended.

        Raises:
            TimeoutExpired: It runs still.
        """
        if (code := self._listen(timeout)) is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended just now
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def ask_to_stop(self) -> None:
        """Have it stopped: by its stop signal, and with its process group by SIGKILL after the grace period."""
        if self.returncode is None:
            with suppress(OSError):  # it has ended just now
                self._connection.shutdown(socket.SHUT_WR)


@dataclass(kw_only=True)
class ForkedProcess(ManagedProcess):
    """A `ManagedProcess` that the fork server forks; `argv` is what follows `python`."""

    _forked: Forked | None = field(default=None, init=False)

    def start(self) -> Self:
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            self._forked = Forked(
                self.argv,
                env=os.environ if self.env is None else self.env,
                output=log,
                cwd=self.cwd,
                stop_signal=self.stop_signal,
                grace=self.grace.total_seconds(),
            )
        self.pid = self._forked.pid
        return self

    @property
    def is_running(self) -> bool:
        return self._forked is not None and self._forked.poll() is None

    @property
    def exit_code(self) -> int | None:
        code = None if self._forked is None else self._forked.poll()
        return 128 - code if code is not None and code < 0 else code

    def ask_to_stop(self) -> None:
        if self._forked is not None:
            self._forked.ask_to_stop()

    def stop(self) -> None:
        if self._forked is not None:
            self.ask_to_stop()
            self._forked.wait(timeout=self.grace.total_seconds() + 5)

    def kill(self) -> None:
        if self._forked is not None:
            self._forked.kill()
            self._forked.wait(timeout=10)

    def __enter__(self) -> Self:
        return self if self._forked is not None else self.start()


def start_python(
    argv: Sequence[str],
    *,
    name: str,
    log_path: Path,
    env: Mapping[str, str],
    cwd: Path | None = None,
    grace: timedelta = timedelta(seconds=8),
) -> ManagedProcess:
    """Start a Python program that stays (`-m …`, `-c …` or a path): forked if it can be, else afresh."""
    with suppress(CannotBeForked):
        return ForkedProcess(name=name, argv=argv, log_path=log_path, env=env, cwd=cwd, grace=grace).start()
    return ManagedProcess(
        name=name, argv=[sys.executable, *argv], log_path=log_path, env=env, cwd=cwd, grace=grace
    ).start()


def run_python(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: str = "",
    timeout: float = 60,
) -> subprocess.CompletedProcess[str]:
    """Run a Python program (`-m …`, `-c …` or a path) to its end: forked if it can be, else afresh.

    Raises:
        TimeoutExpired: It was killed after `timeout` seconds.
    """
    with ExitStack() as files:
        given, out, err = (files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
        given.write(stdin)
        given.seek(0)
        try:
            running = Forked(argv, env=env, cwd=cwd, output=out, errors=err, stdin=given)
        except CannotBeForked:
            return subprocess.run(
                [sys.executable, *argv], env=env, cwd=cwd, input=stdin, capture_output=True, text=True,
                timeout=timeout, check=False,
            )  # fmt: skip
        try:
            code = running.wait(timeout)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait(10)
            raise subprocess.TimeoutExpired(list(argv), timeout, _text(out), _text(err)) from None
        return subprocess.CompletedProcess(list(argv), code, _text(out), _text(err))


def _text(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
