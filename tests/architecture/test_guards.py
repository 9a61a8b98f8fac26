"""Rules about the repository itself, cheap enough to be tests. The layers are checked by import-linter."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import REPOSITORY, clean_environment

#: Characters that reorder text on screen, so that a reviewer reads other code than Python runs (CVE-2021-42574).
BIDI = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]")
ENVIRONMENT_FILE = re.compile(r"(^|/)\.env(\..*|~|\.bak)?$|(^|/)[^/]*\.env(\.(bak|old|orig|save|swp)|~)?$")
#: Who may look at the environment: everybody else is given values.
READERS = {
    "jobbridge/settings.py",
    "jobbridge/temporal/worker/worker.py",
}  # the latter is a command: CELERY_APP stands for -A
READER_FOLDERS = ("jobbridge/cli/", "jobbridge/dev/", "jobbridge/testing/")


def tracked() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [name for name in done.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


def texts(*suffixes: str) -> list[tuple[str, str]]:
    names = [name for name in tracked() if not suffixes or name.endswith(suffixes)]
    read = ((name, (REPOSITORY / name).read_bytes()) for name in names)
    return [(name, content.decode(errors="replace")) for name, content in read if b"\0" not in content]


def test_no_source_holds_bidirectional_control_characters() -> None:
    assert [name for name, text in texts() if BIDI.search(text)] == []


def test_no_environment_file_or_backup_of_one_is_tracked() -> None:
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    found = [name for name in done.stdout.split("\0") if ENVIRONMENT_FILE.search(name)]
    assert [name for name in found if not name.endswith(".example")] == []


@pytest.mark.parametrize(
    "name", [".env", "deploy/.env.local", ".env.bak", ".env~", "prod.env", "prod.env.bak"]
)
def test_the_guard_knows_an_environment_file(name: str) -> None:
    assert ENVIRONMENT_FILE.search(name)


def test_the_budget_for_skipped_tests_is_zero() -> None:
    # Those that are skipped while they run are found by tests/conftest.py.
    skip = re.compile(r"pytest\.(skip|importorskip|xfail)\(|mark\.(skip|skipif|xfail)\b|unittest\.skip")
    found = [name for name, text in texts(".py") if name.startswith("tests/") and skip.search(text)]
    assert [name for name in found if not name.endswith("test_guards.py")] == []


def test_the_lock_file_names_no_registry_but_the_public_one() -> None:
    text = (REPOSITORY / "uv.lock").read_text()
    hosts = set(re.findall(r"https?://([^/\"]+)", text))
    assert hosts <= {"pypi.org", "files.pythonhosted.org"}
    assert set(re.findall(r'registry = "([^"]+)"', text)) == {"https://pypi.org/simple"}


def test_no_other_file_pins_a_registry() -> None:
    pinned = re.compile(r"--(extra-)?index-url|--find-links|index-url\s*=|\[\[tool\.uv\.index\]\]")
    found = [name for name, text in texts() if name != "uv.lock" and pinned.search(text)]
    assert [name for name in found if not name.endswith("test_guards.py")] == []


def test_only_settings_read_the_environment() -> None:
    reads = re.compile(r"\bos\.(environ|getenv)\b")
    sources = [(name, text) for name, text in texts(".py") if name.startswith("jobbridge/")]
    found = {name for name, text in sources if reads.search(text) and not name.startswith(READER_FOLDERS)}
    assert found - READERS == set()


def test_the_package_version_has_a_changelog_entry() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert version in (REPOSITORY / "CHANGELOG.md").read_text()


IMPORT_PROBE = """
import os, socket, sys, threading, logging
for name in ("JOB_RUNNER_TYPE", "EDITION", "JOB_RUNNER_INIT_FAILURE_BACKOFF_MS"):
    os.environ[name] = "nonsense"
os.environ["DATABASE_URL"] = "postgresql://127.0.0.1:1/none"
def refuse(*_): raise AssertionError("a socket was opened at import")
socket.socket.connect = refuse
handlers = list(logging.getLogger().handlers)
import jobbridge
for name in sys.argv[1:]:
    __import__(name)
assert "temporalio" not in sys.modules, "temporalio was imported"
assert threading.active_count() == 1, threading.enumerate()
assert logging.getLogger().handlers == handlers
"""


@pytest.mark.parametrize(
    "module", ["jobbridge", "jobbridge.app", "jobbridge.cli", "jobbridge.cli.celery_plugin"]
)
def test_importing_it_opens_nothing_and_reads_nothing(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", IMPORT_PROBE, module]
    done = subprocess.run(
        command, env=clean_environment(), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_importing_jobbridge_is_light() -> None:
    probe = "import sys, jobbridge; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", probe], env=clean_environment(), capture_output=True, text=True, check=True
    )
    heavy = {
        "celery",
        "sqlalchemy",
        "psycopg",
        "temporalio",
        "pydantic",
        "click",
    }  # kombu has to know our scheme
    assert set(done.stdout.split()) & heavy == set()
