"""Each example passes its own tests, which use the test kit, on both engines."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobbridge.dev.postgres import PostgresServer
from tests.forked import run_python
from tests.support import REPOSITORY, clean_environment

pytestmark = pytest.mark.long

EXAMPLES = REPOSITORY / "examples"
FOLDERS = ["approval", "celery", "django", "fastapi", "psa"]


def run(folder: Path, *arguments: str, **settings: str) -> str:
    done = run_python(arguments, cwd=folder, env=clean_environment(settings), timeout=250)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def copy_of(name: str, parent: Path) -> Path:
    copied = parent / name
    shutil.copytree(EXAMPLES / name, copied, ignore=shutil.ignore_patterns("__pycache__"))
    return copied


def test_each_folder_is_run_and_has_a_readme_and_tests() -> None:
    assert sorted(each.name for each in EXAMPLES.iterdir() if each.is_dir()) == FOLDERS
    for name in FOLDERS:
        readme = (EXAMPLES / name / "README.md").read_text()
        assert len(readme.splitlines()) <= 15
        assert "pytest" in readme
        assert list((EXAMPLES / name).glob("test_*.py"))


@dataclass(frozen=True, kw_only=True)
class Told:
    """What an example's own `pytest` told: its tests, as engine and outcome, and all of it."""

    tests: list[tuple[str, str]]
    exit_code: int
    whole: str


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in FOLDERS]
)
def told(
    request: pytest.FixtureRequest,
    postgres: PostgresServer,
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Told:
    """Have an example's own `pytest` run its tests by all engines, as who reads it does."""
    name = str(request.param)
    folder = copy_of(name, tmp_path_factory.mktemp(name))
    database = postgres.create_database(f"example_{name}", template=migrated_template)
    done = run_python(
        [
            "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:randomly", f"--rootdir={folder}",
            "-o", f"jobbridge_database_url={database}", ".",
        ],
        cwd=folder, env=clean_environment(), timeout=250,
    )  # fmt: skip
    found = re.findall(r"^\S+::\w+(?:\[(.*?)\])? ([A-Z]+)\b", done.stdout, re.MULTILINE)
    tests = [("ee" if "ee" in parameters.split("-") else "ce", outcome) for parameters, outcome in found]
    return Told(tests=tests, exit_code=done.returncode, whole=done.stdout + done.stderr)


@pytest.mark.parametrize("engine", ["celery", "temporal"])
@pytest.mark.timeout(300)
def test_an_example(told: Told, engine: str) -> None:
    """A test for each engine, so that a report says which one failed; what runs inline counts with Celery."""
    name = {"celery": "ce", "temporal": "ee"}[engine]

    assert {outcome for of, outcome in told.tests if of == name} == {"PASSED"}, told.whole
    assert told.exit_code == 0 or {outcome for _, outcome in told.tests} != {"PASSED"}, told.whole
    assert f"[{name}] PASSED" in told.whole, told.whole


@pytest.mark.parametrize("name", ["django"])
def test_an_example_passes_by_djangos_own_runner(name: str, tmp_path: Path, database_url: str) -> None:
    told = run(copy_of(name, tmp_path), "manage.py", "test", DATABASE_URL=database_url)

    assert re.search(r"Ran [1-9]\d* tests", told), told
