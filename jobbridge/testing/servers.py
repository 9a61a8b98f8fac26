"""Postgres and Temporal for a test process: started when they are needed, ended with it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from psycopg import sql

from jobbridge.dev.postgres import run_postgres
from jobbridge.dev.temporal import run_temporal
from jobbridge.postgres.connect import close, connect
from jobbridge.postgres.target import Target
from jobbridge.settings import in_schema, load_settings
from jobbridge.store.schema.migrate import migrate

_PREFIX = "jobbridge_test_"
#: Data that nobody needs stays in memory where there is room for it.
_MEMORY, _ENOUGH = Path("/dev/shm"), 1 << 29  # noqa: S108  # bytes; the folder in it is ours alone


class Servers:
    """What tests of one process share. Databases are copies of a migrated template, one for each test.

    Args:
        database_url: A Postgres in which databases may be made; None: one is started (extra `testing`).
    """

    def __init__(self, database_url: str | None = None) -> None:
        self._given = database_url
        self._stack = ExitStack()
        self._url: str | None = None
        self._template: str | None = None
        self._temporal: str | None = None
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop what was started, and drop what was made."""
        self._stack.close()
        self._url = self._template = self._temporal = self._folder = None

    @contextmanager
    def database(self) -> Iterator[str]:
        """Give the URL of a fresh, migrated database until the block ends.

        Raises:
            DevServerError: Postgres does not start, or is not installed; the hint says what to install.
        """
        template, name = self._migrated(), f"{_PREFIX}{uuid.uuid4().hex}"
        self._administer("CREATE DATABASE {} TEMPLATE {}", name, template)
        try:
            yield self._url_of(name)
        finally:
            self._administer("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)

    @property
    def temporal_address(self) -> str:
        """Where Temporal's development server listens.

        Raises:
            DevServerError: It does not start, or is not installed; the hint says what to install.
        """
        if self._temporal is None:
            log = self._own_folder() / "temporal.log"
            self._temporal = self._stack.enter_context(run_temporal(log_path=log)).address
        return self._temporal

    def _migrated(self) -> str:
        if self._template is None:
            self._start_postgres()
            name = f"{_PREFIX}template_{uuid.uuid4().hex}"
            self._administer("CREATE DATABASE {}", name)
            self._stack.callback(self._administer, "DROP DATABASE IF EXISTS {} WITH (FORCE)", name)
            migrate(in_schema(self._url_of(name), load_settings().database_schema))
            # The first session of a database writes a file with what all need of its catalogue; copies have it then.
            close(connect(Target.of(self._url_of(name)), "tests"))
            self._template = name
        return self._template

    def _start_postgres(self) -> None:
        if self._given is not None:
            self._url = (
                Target.of(self._given).sqlalchemy_url().set(drivername="postgresql").render_as_string(False)
            )
            return
        folder = self._own_folder() / "postgres"
        server = self._stack.enter_context(
            run_postgres(folder, is_durable=False, settings={"max_wal_size": "64MB"})
        )
        self._url = server.url()

    def _own_folder(self) -> Path:
        if self._folder is None:
            room = shutil.disk_usage(_MEMORY).free if _MEMORY.is_dir() else 0
            parent = _MEMORY if room > _ENOUGH else None
            self._folder = Path(tempfile.mkdtemp(prefix="jobbridge-testing-", dir=parent))
            self._folder.chmod(0o755)  # Postgres does not run as root: another account has to get in
            self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder

    def _url_of(self, name: str) -> str:
        assert self._url is not None
        head, _, tail = self._url.partition("?")
        return head.rsplit("/", 1)[0] + f"/{name}" + (f"?{tail}" if tail else "")

    def _administer(self, statement: str, *names: str) -> None:
        assert self._url is not None
        connection = connect(Target.of(self._url), "tests")
        try:
            identifiers: list[Any] = [sql.Identifier(name) for name in names]
            connection.execute(sql.SQL(statement).format(*identifiers))
        finally:
            close(connection)


_shared: Servers | None = None


def shared_servers() -> Servers:
    """Give those of this process for who has no fixtures (unittest); they end with the process."""
    global _shared
    if _shared is None:
        _shared = Servers()
        atexit.register(_shared.close)
    return _shared
