"""Run one command, and stop it as soon as whoever asked for it is gone.

A program of its own, run by path with `python -I -S`: standard library only, so it starts in some 20 ms.
It stands between us and each server or worker that we start, because a child that we started ourselves would
outlive us when we are killed with SIGKILL. It stops the command when its standard input closes (the parent closed
it, or is dead), when it has another parent than at the start, or on SIGTERM: first with the signal that the command
likes best, after the grace period with SIGKILL to the command's whole process group.

    python -I -S keeper.py --report FD [--signal N] [--grace SECONDS] [--uid N --gid N] -- COMMAND ...

It writes one line to FD: `pid N`, or `error TEXT` when the command cannot be started. Its own exit status is the
command's (128 + signal when a signal ended it, as in a shell).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_TICK_SECONDS = (
    1.0  # how late a changed parent may be noticed, should the pipe be held open by a stray process
)


def main() -> int:
    options = _parse()
    parent = os.getppid()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    asked_to_stop = []
    signal.signal(signal.SIGTERM, lambda *_: asked_to_stop.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        child = _start(options)
    except OSError as error:
        os.write(options.report, f"error {error}\n".encode())
        return 127
    os.write(options.report, f"pid {child.pid}\n".encode())
    os.close(options.report)
    while child.poll() is None:
        ready, _, _ = select.select([sys.stdin.fileno(), wake_read], [], [], _TICK_SECONDS)
        if wake_read in ready:
            os.read(wake_read, 512)
        if asked_to_stop or sys.stdin.fileno() in ready or os.getppid() != parent:
            _stop(child, options)
    _kill_group(child.pid)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--report", type=int, required=True)
    parser.add_argument("--signal", type=int, default=signal.SIGTERM)
    parser.add_argument("--grace", type=float, default=8.0)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


def _start(options: argparse.Namespace) -> subprocess.Popen[bytes]:
    switch = {} if options.uid is None else {"user": options.uid, "group": options.gid, "extra_groups": []}
    return subprocess.Popen(
        options.command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C at a terminal goes to the whole foreground group; we stop in order
        preexec_fn=lambda: _die_with_keeper(options.signal),
        **switch,
    )


def _die_with_keeper(stop_signal: int) -> None:
    # Linux only, and only for the case that the keeper itself is killed with SIGKILL.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, stop_signal)


def _stop(child: subprocess.Popen[bytes], options: argparse.Namespace) -> None:
    deadline = time.monotonic() + options.grace
    child.send_signal(options.signal)
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    if child.poll() is None:
        _kill_group(child.pid)
        child.wait()


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
