"""A TCP proxy that can stop passing on, as a network or a server does that hangs."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Self


class Proxy:
    """Listens on a port of its own and passes on what comes, both ways.

    Args:
        port: Of 127.0.0.1: where it passes things on to.

    Attributes:
        answers: Cleared: requests go through, and their answers do not.
        requests: Cleared: nothing goes through.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._sockets: list[socket.socket] = []
        self._is_open = True
        self._is_cut = False
        self.answers = threading.Event()
        self.requests = threading.Event()
        self.thaw()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def freeze(self, *, answers_only: bool = False) -> None:
        self.answers.clear()
        if not answers_only:
            self.requests.clear()

    def thaw(self) -> None:
        self.requests.set()
        self.answers.set()

    def cut(self) -> None:
        """End all connections, and each that comes from now on."""
        self._is_cut = True
        self._end(self._sockets)

    def mend(self) -> None:
        """Take connections again."""
        self._is_cut = False

    def point_to(self, port: int) -> None:
        """Pass on to another port what connects from now on."""
        self._target = port

    def _end(self, sockets: list[socket.socket]) -> None:
        for each in list(sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_open = False
        self.thaw()
        self._end([self._listener, *self._sockets])

    def _accept(self) -> None:
        with suppress(OSError):
            while self._is_open:
                here, _ = self._listener.accept()
                there = None if self._is_cut else self._reach()
                if there is None:
                    here.close()
                    continue
                self._sockets += [here, there]
                for source, sink, gate in ((here, there, self.requests), (there, here, self.answers)):
                    threading.Thread(target=self._pass_on, args=(source, sink, gate), daemon=True).start()

    def _reach(self) -> socket.socket | None:
        try:
            return socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            return None  # nobody is there: whoever connects here is told so

    def _pass_on(self, source: socket.socket, sink: socket.socket, gate: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                gate.wait()
                sink.sendall(data)
        # Also when it was reset, as by who is killed with something unread: the other side would never hear of it.
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
