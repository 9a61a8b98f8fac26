"""PgBouncer of the system (.ci/server installs it), in front of a Postgres of the tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from jobbridge.dev.postgres import USER, PostgresServer
from jobbridge.dev.process import ManagedProcess, free_port
from tests.support import wait_until

_SETTINGS = """
[databases]
* = host=127.0.0.1 port={server_port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {users}
pool_mode = {mode}
default_pool_size = {size}
"""


@contextmanager
def run_pgbouncer(folder: Path, server: PostgresServer, *, mode: str, size: int = 20) -> Iterator[str]:
    """Run one until the block ends.

    Args:
        folder: Which every account may enter: it does not run as root.
        server: What it stands in front of.
        mode: `transaction` or `session`.
        size: Sessions for each database and user.

    Yields:
        What stands for host and port in a URL.
    """
    binary = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert binary is not None, "PgBouncer is not installed: run `make setup` as root, or install it"
    port, users, settings = free_port(), folder / "users.txt", folder / f"{mode}.ini"
    users.write_text(f'"{USER}" "{server.password}"\n')
    text = _SETTINGS.format(server_port=server.port, port=port, users=users, mode=mode, size=size)
    settings.write_text(text + ("user = nobody\n" if os.geteuid() == 0 else ""))
    process = ManagedProcess(
        name="PgBouncer", argv=[binary, str(settings)], log_path=folder / f"{mode}.log", env=dict(os.environ)
    ).start()
    try:
        place = f"127.0.0.1:{port}"
        wait_until(lambda: _answers(server.url().replace(f"127.0.0.1:{server.port}", place)))
        yield place
    finally:
        process.kill()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True
