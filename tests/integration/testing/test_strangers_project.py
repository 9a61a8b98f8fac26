"""A project of somebody else's, in an empty folder, whose tests use the kit: docs/testing.md prints it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.support import REPOSITORY, clean_environment

_FILE = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)


@pytest.fixture
def project(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> pytest.Pytester:
    """The project of a page, and the installed distribution's entry points, which bring the plugin."""
    page = getattr(request, "param", "docs/testing.md")
    for name, text in _FILE.findall((REPOSITORY / page).read_text()):
        path = pytester.path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    (pytester.path / "shop/__init__.py").touch()
    if not (pytester.path / "pytest.ini").exists():
        (pytester.path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    installed = _installed(pytester.path / "site")
    environment = clean_environment({"PYTHONPATH": f"{installed}"})
    monkeypatch.setenv("PYTHONPATH", environment["PYTHONPATH"])
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    return pytester


def _installed(folder: Path) -> Path:
    """Make what an installation leaves beside the package: pyproject's entry points for pytest."""
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["entry-points"][
        "pytest11"
    ]
    info = folder / "jobbridge_plugin-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: jobbridge_plugin\nVersion: 1\n")
    points = "\n".join(f"{name} = {module}" for name, module in declared.items())
    (info / "entry_points.txt").write_text(f"[pytest11]\n{points}\n")
    return folder


def test_the_documented_project_passes(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess(
        "-p", "no:randomly", "-W", "error", "-k", "not ee and not celerys", "-v"
    )
    result.assert_outcomes(passed=7, deselected=3)


@pytest.mark.long
def test_the_documented_project_passes_on_all_engines_and_processes(project: pytest.Pytester) -> None:
    project.runpytest_subprocess("-n", "2").assert_outcomes(passed=10)


def test_what_was_enqueued_is_listed_and_failures_are_raised(project: pytest.Pytester) -> None:
    path = project.path / "tests/test_failing.py"
    path.write_text(
        """
import pytest
from jobbridge.testing import assert_enqueued, drain, fail_next, refute_enqueued
from shop.jobs import charge, invoice, order, price

pytestmark = pytest.mark.jobbridge(engines=["inline"])

def test_other_arguments(jobbridge):
    order(3)
    assert_enqueued(charge, args=[31])

def test_none_was_to_be(jobbridge):
    order(3)
    refute_enqueued(price, args=(3,))

def test_it_fails(jobbridge):
    fail_next(price, KeyError("nobody"))
    price.delay(1)
    drain(raise_on_failure=True)

@pytest.mark.jobbridge(engines=["rabbitmq"])
def test_no_such_engine(jobbridge): ...
"""
    )
    result = project.runpytest_subprocess(
        "-p", "no:randomly", str(path), "--deselect", f"{path}::test_no_such_engine"
    )
    result.stdout.fnmatch_lines(
        ["*names rabbitmq; there are inline, ce, ee.*"],
    )
    path.write_text(path.read_text().partition('@pytest.mark.jobbridge(engines=["rabbitmq"])')[0])
    result = project.runpytest_subprocess("-p", "no:randomly", str(path))
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "*No job of shop.jobs.charge with args=[[]31[]] was enqueued.*",
            "*Enqueued were 2 jobs:*",
            "*- shop.jobs.charge(30) queue='celery' [[]completed[]]*",
            "*args is [[]30[]], not [[]31[]]*",
            "*A job of shop.jobs.price with args=(3,) was enqueued, and none was to be.*",
            "*KeyError: 'nobody'*",
            "*JobFailed: shop.jobs.price(1)*",
        ]
    )


def test_a_project_without_jobs_imports_nothing(project: pytest.Pytester) -> None:
    path = project.path / "other/test_other.py"
    path.parent.mkdir()
    path.write_text(
        """
import sys
def test_nothing():
    heavy = {"celery", "kombu", "psycopg", "sqlalchemy", "temporalio", "jobbridge", "greenlet"}
    assert heavy & set(sys.modules) == set()
    assert "jobbridge_pytest" in sys.modules
"""
    )
    project.runpytest_subprocess(str(path), "-p", "no:xdist").assert_outcomes(passed=1)


@pytest.mark.parametrize("project", ["docs/async.md"], indirect=True)
def test_the_documented_coroutines_work(project: pytest.Pytester) -> None:
    project.runpytest_subprocess("-p", "no:randomly", "-p", "no:xdist").assert_outcomes(passed=2)
