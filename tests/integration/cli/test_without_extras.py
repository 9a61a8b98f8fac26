"""Commands where extras, or clients of other brokers, are not installed: nothing fails for the lack of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import clean_environment

SHOP = """
from jobbridge import Celery

app = Celery("shop")
"""
#: What is None there cannot be imported, and is not found.
PROGRAM = """
import sys

for name in {absent!r}:
    sys.modules[name] = None
from jobbridge.cli.root import run

sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


def asked(folder: Path, database_url: str, *arguments: str, absent: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(absent=[absent]), *arguments, "-A", "shop"],
        cwd=folder,
        env=clean_environment({"DATABASE_URL": database_url, "PYTHONPATH": str(folder)}),
        capture_output=True,
        text=True,
        check=False,
    )


def test_doctor_finds_nothing_wrong_where_temporal_is_not_installed(folder: Path, database_url: str) -> None:
    done = asked(folder, database_url, "doctor", absent="temporalio")

    assert "temporal: the extra is not installed" in done.stdout
    assert "report it" not in done.stderr
    assert done.returncode in (0, 1), done.stderr  # there are no workers


def test_a_check_before_the_move_says_what_to_install(folder: Path, database_url: str) -> None:
    done = asked(folder, database_url, "cutover", "check", "--to", "temporal", absent="temporalio")

    assert "jobbridge[temporal]" in done.stdout
    assert done.returncode == 1


def test_an_old_broker_whose_client_is_not_installed_is_told_so(folder: Path, database_url: str) -> None:
    done = asked(folder, database_url, "cutover", "--from", "redis://localhost:1/0", absent="redis")

    assert "the package redis is needed" in done.stderr
    assert "Run `pip install redis`" in done.stderr
    assert "report it" not in done.stderr
