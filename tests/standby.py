"""A standby of a Postgres of the tests, made as an administrator makes one: by `pg_basebackup`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobbridge.dev.postgres import USER, PostgresServer, _account, _binaries, _home, run_postgres


@contextmanager
def run_standby(folder: Path, primary: PostgresServer) -> Iterator[PostgresServer]:
    """Run one that follows `primary`, in a folder that every account may enter."""
    folder.mkdir(mode=0o755)
    account = _account()
    home = _home(folder.resolve(), account)
    home.joinpath("password").write_text(primary.password)
    data = home / "data"
    data.mkdir(mode=0o700)
    if account is not None:
        os.chown(data, account.uid, account.gid)
    subprocess.run(
        [
            _binaries(account) / "pg_basebackup",
            "--pgdata", data, "--write-recovery-conf", "--checkpoint", "fast", "--no-sync",
            "--dbname", f"host=127.0.0.1 port={primary.port} user={USER} password={primary.password}",
        ],
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else [],
        cwd="/",
        check=True,
        capture_output=True,
    )  # fmt: skip
    with run_postgres(folder) as server:
        yield server
