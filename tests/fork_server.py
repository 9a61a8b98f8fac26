"""One process that has imported what workers and commands import, and forks them: `python -m tests.fork_server FD`.

A worker's imports cost more processor time than most tests of it. Here they are paid once for a run. What is forked
goes on exactly as `python -m MODULE …` or `python -c PROGRAM` does (`runpy`'s own way, with a `__main__`, `sys.argv`,
`sys.path`, environment, folder, session and signals of its own): it is the command that a user calls, only that
`import celery` finds the module there. So that this is true,

- nothing but importing happens before the fork: one thread, no connection, no file (looked at before each fork);
- which environment variables were read meanwhile is written down: a program that is to run with another value of one
  of them (or of what the interpreter itself reads: PYTHON…, LC_…, LD_…) is refused, and is then started afresh.

It is the parent of what it forks, and what a keeper is to a `ManagedProcess` (jobbridge/dev/keeper.py): each program
has a connection over which it was asked for. When that closes, the program is stopped; when the program ends, its
exit code is sent there. All end when standard input closes, which is when the run ends, in whatever way.

Requests are a length (8 bytes), JSON, and three file descriptors: `tests/forked.py` makes them.
"""

from __future__ import annotations

import builtins
import ctypes
import gc
import importlib.machinery
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import sys
import time
import types
import wsgiref.handlers  # noqa: F401  # takes a copy of the whole environment, for CGI: not to be written down below
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NewType, NoReturn

_LIBRARIES = (
    "alembic.command",
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.prefork",
    "celery.concurrency.solo",
    "celery.concurrency.thread",
    "kombu.transport.sqlalchemy",
    "temporalio.client",
    "temporalio.worker",
    "uvicorn",
)
#: Not before the fork: handlers are registered by their import, which is an app's own choice; Django reads settings.
_NOT_OURS = ("jobbridge.handlers", "jobbridge.django", "jobbridge.testing", "jobbridge._migrations")
_READ_BY_THE_INTERPRETER = ("PYTHON", "LC_", "LANG", "LD_", "MALLOC_")
#: Ours are imported from PYTHONPATH all the same; and output here is unbuffered in any case.
_MAY_DIFFER = {"PYTHONPATH", "PYTHONUNBUFFERED"}
_LENGTH = 8
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_TICK = 0.05  # seconds; how late a grace period may end

Program = NewType("Program", dict[str, Any])


@dataclass(kw_only=True, eq=False)
class _Child:
    pid: int
    program: Program
    connection: socket.socket
    kill_at: float | None = None
    is_let_go: bool = False


@dataclass(kw_only=True)
class ForkServer:
    """Forks what it is asked for on `listener`, until standard input closes."""

    listener: socket.socket
    base_path: list[str] = field(default_factory=list)
    children: dict[int, _Child] = field(default_factory=dict)
    read_while_importing: set[str] = field(default_factory=set)
    is_loaded: bool = False

    def __post_init__(self) -> None:
        self.environment = dict(os.environ)
        self.selector = selectors.DefaultSelector()
        self.wake_read, self.wake_write = os.pipe()
        os.set_blocking(self.wake_read, False)
        os.set_blocking(self.wake_write, False)

    def serve(self) -> Program:
        """Serve. Returns in each forked child, with what it is to be; the server itself exits."""
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test run, which then ends us
        for file in (0, self.wake_read, self.listener):
            self.selector.register(file, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select(_TICK if self._is_somebody_leaving() else None):
                if key.fileobj == 0:
                    self._end()
                elif key.fileobj == self.wake_read:
                    with suppress(BlockingIOError):
                        os.read(self.wake_read, 512)
                elif key.fileobj is self.listener:
                    if (program := self._accept()) is not None:
                        return program
                elif isinstance(key.data, _Child):
                    self._let_go(key.data)
            self._reap()
            self._kill_what_takes_too_long()

    # -- before the fork

    def _load(self) -> None:
        with _written_down(self.read_while_importing):
            for name in _LIBRARIES:
                importlib.import_module(name)
            package = importlib.import_module("jobbridge")
            for module in pkgutil.walk_packages(package.__path__, "jobbridge."):
                if not module.name.startswith(_NOT_OURS) and not module.name.endswith(".__main__"):
                    importlib.import_module(module.name)
        gc.collect()
        gc.freeze()  # a child's collector need not write to these pages
        self.is_loaded = True

    def _different(self, environment: dict[str, str]) -> str | None:
        """Name a variable that is not what it was when it was read."""
        for name in sorted(environment.keys() | self.environment.keys()):
            is_read = name in self.read_while_importing or name.startswith(_READ_BY_THE_INTERPRETER)
            is_other = environment.get(name) != self.environment.get(name)
            if is_other and is_read and name not in _MAY_DIFFER:
                return name
        return None

    def _accept(self) -> Program | None:
        connection, _ = self.listener.accept()
        connection.setblocking(True)
        program, files = _receive(connection)
        if program is None:  # whoever asked was killed meanwhile
            connection.close()
            return None
        if not self.is_loaded:
            self._load()
        try:
            if (name := self._different(program["env"])) is not None:
                connection.sendall(f"differs {name}\n".encode())
                connection.close()
                return None
            _be_alone()
            if (pid := os.fork()) == 0:
                self._forget(connection)
                _become(program, files, self.base_path)
                return program
        finally:
            for file in files:
                os.close(file)
        child = _Child(pid=pid, program=program, connection=connection)
        self.children[pid] = child
        self.selector.register(connection, selectors.EVENT_READ, child)
        self._tell(child, f"pid {pid}\n")
        return None

    def _forget(self, connection: socket.socket) -> None:
        """Close, in a child, what is the server's."""
        signal.set_wakeup_fd(-1)
        self.selector.close()
        self.listener.close()
        connection.close()
        for child in self.children.values():
            child.connection.close()
        self.children.clear()
        os.close(self.wake_read)
        os.close(self.wake_write)

    # -- after it

    def _is_somebody_leaving(self) -> bool:
        return any(child.kill_at is not None for child in self.children.values())

    def _let_go(self, child: _Child) -> None:
        """Its owner has closed the connection, or half of it: ask the program to stop."""
        self.selector.unregister(child.connection)
        child.kill_at = time.monotonic() + child.program["grace"]
        os.kill(child.pid, child.program["stop_signal"])

    def _kill_what_takes_too_long(self) -> None:
        for child in self.children.values():
            if child.kill_at is not None and time.monotonic() > child.kill_at:
                _kill_group(child.pid)

    def _reap(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self.children.pop(pid)
            if child.program["takes_its_group_along"]:
                _kill_group(pid)
            if child.kill_at is None:
                self.selector.unregister(child.connection)
            self._tell(child, f"exit {os.waitstatus_to_exitcode(status)}\n")
            child.connection.close()

    @staticmethod
    def _tell(child: _Child, line: str) -> None:
        with suppress(OSError):  # nobody is there any more to hear it
            child.connection.sendall(line.encode())

    def _end(self) -> NoReturn:
        for child in self.children.values():
            _kill_group(child.pid)
        os._exit(0)


def _receive(connection: socket.socket) -> tuple[Program | None, list[int]]:
    begun, files, _, _ = socket.recv_fds(connection, _LENGTH, 3)
    rest = b""
    if len(begun) == _LENGTH:
        while len(rest) < int(begun, 16) and (more := connection.recv(1 << 16)):
            rest += more
    if not rest or len(rest) < int(begun, 16):
        for file in files:
            os.close(file)
        return None, []
    return Program(json.loads(rest)), files


class _written_down:  # noqa: N801  # a context manager, read as a phrase
    """Write down which environment variables are read meanwhile."""

    def __init__(self, names: set[str]) -> None:
        self.names = names

    def __enter__(self) -> None:
        self.reads = type(os.environ).__getitem__

        def reads(environment: Any, name: str) -> str:
            self.names.add(name)
            return self.reads(environment, name)

        type(os.environ).__getitem__ = reads  # type: ignore[method-assign]  # also behind `get` and `in`

    def __exit__(self, *_: object) -> None:
        type(os.environ).__getitem__ = self.reads  # type: ignore[method-assign]  # as it was


def _be_alone() -> None:
    tasks = Path("/proc/self/task")
    if tasks.is_dir() and len(found := list(tasks.iterdir())) > 1:
        raise RuntimeError(f"An import has started a thread: {len(found)} run, and a fork would lose them.")


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


# -- in the child


def _become(program: Program, files: list[int], base_path: list[str]) -> None:
    """Have what a new process has: session, signals, files, folder, environment, import path."""
    os.setsid()
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, program["stop_signal"])
    for standard, file in enumerate(files):
        os.dup2(file, standard)
    if program["cwd"] is not None:
        os.chdir(program["cwd"])
    os.environ.clear()
    os.environ.update(program["env"])
    time.tzset()
    path = [part for part in program["env"].get("PYTHONPATH", "").split(os.pathsep) if part]
    first = str(Path.cwd()) if program["kind"] == "-m" else ""
    sys.path[:] = [first, *(str(Path(part).absolute()) for part in path), *base_path]
    sys.path_importer_cache.clear()
    sys.orig_argv[:] = [sys.executable, program["kind"], program["code"], *program["arguments"]]
    sys.argv[:] = [program["kind"], *program["arguments"]]
    main = types.ModuleType("__main__")
    main.__dict__.update(
        __builtins__=builtins, __annotations__={}, __loader__=importlib.machinery.BuiltinImporter
    )
    sys.modules["__main__"] = main


def _run(program: Program) -> None:
    if program["kind"] == "-c":
        exec(compile(program["code"], "<string>", "exec"), sys.modules["__main__"].__dict__)
        return
    sys.modules.pop(program["code"], None)  # a new process would run it without having imported it
    runpy._run_module_as_main(program["code"])  # type: ignore[attr-defined]  # what `python -m` calls


if __name__ == "__main__":
    _added = 1 + len(os.environ["PYTHONPATH"].split(os.pathsep))
    _server = ForkServer(listener=socket.socket(fileno=int(sys.argv[1])), base_path=[*sys.path[_added:]])
    # The end of this module is the end of the forked program, with all that the interpreter does then.
    _run(_server.serve())
