"""A user's project is checked as its author would: `mypy --strict` against the installed package."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.support import REPOSITORY

#: mypy reads all of our dependencies, with nothing remembered: half a minute.
pytestmark = pytest.mark.long

PROJECT = Path(__file__).with_name("typed_project.py")


@pytest.fixture(scope="module", params=["without types of Celery", "with celery-types"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with what JobBridge needs, and JobBridge."""
    folder = tmp_path_factory.mktemp("user") / "venv"
    venv.create(folder, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    for each in Path(sysconfig.get_path("purelib")).iterdir():
        is_left_out = each.name.endswith("-stubs") and request.param == "without types of Celery"
        if not is_left_out and each.suffix not in {".pth", ".dist-info"} and each.name != "jobbridge":
            (packages / each.name).symlink_to(each)
    (packages / "jobbridge").symlink_to(REPOSITORY / "jobbridge")
    return folder / "bin" / "python"


def complaints(python: Path, program: Path) -> list[str]:
    """Give what mypy says, as `LINE: text`."""
    options = [
        "--strict",
        "--python-executable",
        str(python),
        "--cache-dir",
        str(python.parents[1] / "cache"),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "--config-file", "", "--no-error-summary", program.name],
        cwd=program.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert not done.stderr, done.stderr
    return [line.removeprefix(f"{program.name}:") for line in done.stdout.splitlines()]


def test_nothing_of_the_public_surface_is_untyped(python: Path, tmp_path: Path) -> None:
    program = tmp_path / "shop.py"
    program.write_text(PROJECT.read_text())
    expected = {}
    for number, line in enumerate(PROJECT.read_text().splitlines(), start=1):
        if found := re.search(r"  #([:!]) (.+)$", line):
            expected[number] = found[2]

    told: dict[int, str] = {}
    for line in complaints(python, program):
        number, text = line.split(": ", 1)
        revealed = re.search('Revealed type is "(.+)"$', text)
        code = re.search(r"^error: .*\[([\w-]+)\]$", text)
        if revealed or code:
            told[int(number)] = revealed[1] if revealed else code[1]

    assert told == expected


def test_the_readmes_example_passes_as_it_is(python: Path, tmp_path: Path) -> None:
    [example] = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / "README.md").read_text(), re.M | re.S)
    (tmp_path / "shop.py").write_text(example)

    assert complaints(python, tmp_path / "shop.py") == []
