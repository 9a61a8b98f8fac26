"""Releases of jobbridge beside this one, each in a folder of its own, with the packages that all of them need."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from jobbridge.core.keys import Engine
from jobbridge.dev.process import ManagedProcess
from jobbridge.store.schema_range import THIS_RELEASE
from tests.forked import run_python, start_python
from tests.support import REPOSITORY, clean_environment, wait_until

HERE = Path(__file__).parent
#: As `.ci/build-wheel` made it of the last commit before schema versions could live side by side.
WHEEL_BEFORE = HERE / "jobbridge-0.1.0-py3-none-any.whl"

_RELEASES = REPOSITORY / "build" / "releases"

_WORKERS = {
    Engine.CELERY: ["-m", "celery", "-A", "upgrade_app", "worker"],
    Engine.TEMPORAL: ["-m", "jobbridge.cli", "temporal-worker", "-A", "upgrade_app"],
}

#: What the pretended next release does to the tables: a value means something else. Statements of this release would go
#: on working, and do the wrong thing.
_CONTRACT = f'''"""Turn the order of priorities round."""

from alembic import op

revision = "9001_contract"
down_revision = "{THIS_RELEASE.newest}"
branch_labels = None
depends_on = None
serves_since = "9001_contract"


def upgrade() -> None:
    op.execute("COMMENT ON COLUMN public.jobs.priority IS 'Lowest first.'")


def downgrade() -> None:
    op.execute("COMMENT ON COLUMN public.jobs.priority IS NULL")
'''


@dataclass(frozen=True, kw_only=True)
class Release:
    """One release, and the folder that processes of the tests' application write into.

    Attributes:
        folder: Where its package is.
        settings: The application's.
    """

    version: str
    folder: Path
    settings: Mapping[str, str]
    notes: Path

    @property
    def _is_this_one(self) -> bool:
        """Whether the tests' fork server has imported this release: another one needs a new process."""
        return self.folder == REPOSITORY

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python with this release to its end."""
        if self._is_this_one:
            return run_python(arguments, cwd=self.notes, env=self._environment)
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.notes, env=self._environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def migrate(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "jobbridge.cli", "migrate", *options)

    def send(self, task: str) -> str:
        """Send one job; gives its id."""
        done = self.run("-m", "upgrade_sender", f"upgrade.{task}")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @contextmanager
    def sender(self) -> Iterator[ManagedProcess]:
        """Send jobs as long as the block lasts."""
        with self._process("-m", "upgrade_sender") as process:
            yield process

    @contextmanager
    def worker(self, engine: Engine, *options: str) -> Iterator[ManagedProcess]:
        """Run a worker until the block ends."""
        name = f"{uuid.uuid4().hex[:8]}@%h"
        argv = [*_WORKERS[engine], "-l", "INFO", "-n", name, "-c", "4", *options]
        with self._process(*argv) as process:
            wait_until(lambda: "ready." in process.log() or not process.is_running, timeout=30)
            assert process.is_running, process.log()
            yield process

    @property
    def _environment(self) -> dict[str, str]:
        path = f"{self.folder}:{HERE / 'programs'}"
        return clean_environment({**self.settings, "PYTHONPATH": path, "UPGRADE_NOTES": str(self.notes)})

    @contextmanager
    def _process(self, *arguments: str) -> Iterator[ManagedProcess]:
        name = f"{self.version}-{uuid.uuid4().hex[:6]}"
        log, grace, environment = self.notes.parent / f"{name}.log", timedelta(seconds=60), self._environment
        if self._is_this_one:
            process = start_python(
                arguments, name=name, log_path=log, env=environment, cwd=self.notes, grace=grace
            )
        else:
            process = ManagedProcess(
                name=name, argv=[sys.executable, *arguments], log_path=log,
                env=environment, cwd=self.notes, grace=grace,
            ).start()  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            print(f"--- log of {name} ---\n{process.log()}")


def release_before() -> Path:
    """Give the folder of the release before this one."""
    return _kept(f"before-{WHEEL_BEFORE.stat().st_mtime_ns}", _unpack)


def next_release() -> Path:
    """Give the folder of a release that is this one, and one contracting migration further."""
    files = [
        path for part in ("jobbridge", "migrations") for path in sorted((REPOSITORY / part).rglob("*.py"))
    ]
    told = "".join(f"{path}{(state := path.stat()).st_mtime_ns}{state.st_size}" for path in files)
    return _kept(f"next-{hashlib.sha256((told + _CONTRACT).encode()).hexdigest()[:16]}", _make_next)


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    """Make a release unless it is there: where it stays, it is compiled once."""
    folder = _RELEASES / name
    if not folder.exists():
        _RELEASES.mkdir(parents=True, exist_ok=True)
        for former in _RELEASES.glob(f"{name.partition('-')[0]}-*"):
            if former != folder:  # another process may have just made it
                shutil.rmtree(former, ignore_errors=True)
        unfinished = Path(tempfile.mkdtemp(dir=_RELEASES))
        make(unfinished)
        try:
            unfinished.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(unfinished)
    return folder


def _unpack(folder: Path) -> None:
    with zipfile.ZipFile(WHEEL_BEFORE) as wheel:
        wheel.extractall(folder)


def _make_next(folder: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "jobbridge", folder / "jobbridge", ignore=ignored)
    shutil.copytree(REPOSITORY / "migrations", folder / "jobbridge" / "_migrations", ignore=ignored)
    (folder / "jobbridge/_migrations/versions/9001_contract.py").write_text(_CONTRACT)
    ranges = folder / "jobbridge/store/schema_range.py"
    ranges.write_text(ranges.read_text().replace(THIS_RELEASE.newest, "9001_contract"))
