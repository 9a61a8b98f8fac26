"""What a command imports before it does anything: nobody waits for what they do not use."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from jobbridge.cli.root import jobbridge
from tests.support import clean_environment

_DASHBOARD = {"fastapi", "starlette", "uvicorn", "jinja2", "prometheus_client", "jobbridge.dashboard"}
_TEMPORAL = {"temporalio", "google.protobuf", "jobbridge.temporal"}
_DATABASE = {"sqlalchemy", "alembic", "psycopg"}
_CELERY = {"celery", "pydantic", "jobbridge.bootstrap", "jobbridge.app"}
_OTHERS = {"httpx", "openpyxl", "reportlab", "opentelemetry", "jobbridge.handlers", "jobbridge.testing"}
_ALL = _DASHBOARD | _TEMPORAL | _DATABASE | _CELERY | _OTHERS

#: What a command must not import to show its own help; others may import nothing of all that.
_MAY_IMPORT = {
    "": set(),
    "demo": {"psycopg"},  # it starts Postgres
    "dev": {"psycopg", "pydantic"},
    "temporal-worker": _ALL - _DASHBOARD - _OTHERS - {"alembic"},  # its options are those of Celery's worker
}

_PROBE = """
import json, os, sys
from contextlib import redirect_stdout
from io import StringIO
from jobbridge.cli.root import run

found = {}
for name in json.loads(sys.argv[1]):
    reading, writing = os.pipe()
    if os.fork() == 0:  # from the same beginning for each, which only knows the group of commands
        with redirect_stdout(StringIO()):
            code = run([name, "--help"] if name else ["--help"])
        with os.fdopen(writing, "w") as answer:
            json.dump([code, sorted(sys.modules)], answer)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        found[name] = json.load(answer)
    os.wait()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def imported() -> dict[str, tuple[int, list[str]]]:
    names = json.dumps(["", *jobbridge.list_commands(None)])  # type: ignore[arg-type]  # it asks nothing of it
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, names],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, tuple[int, list[str]]] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("name", ["", *jobbridge.list_commands(None)])  # type: ignore[arg-type]
def test_a_command_shows_its_help_without_importing_what_it_may_need_later(
    name: str, imported: dict[str, tuple[int, list[str]]]
) -> None:
    code, modules = imported[name]

    assert code == 0
    assert "click" in modules
    assert set(modules) & (_ALL - _MAY_IMPORT.get(name, set())) == set()
    if not name:
        assert "rich" not in modules


_PLAIN_KOMBU = """
import json, sys
import kombu.serialization
from kombu.transport import TRANSPORT_ALIASES

assert "jobbridge" in TRANSPORT_ALIASES
print(json.dumps(sorted(sys.modules)))
"""


def test_plain_kombu_knows_the_scheme_and_loads_nothing_else_of_ours() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PLAIN_KOMBU],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, f"The entry points are those of an earlier `make setup`?\n{done.stderr}"
    modules = set(json.loads(done.stdout))
    ours = {"jobbridge", "jobbridge.broker", "jobbridge.cli", "jobbridge.cli.kombu_plugin"}
    assert {name for name in modules if name.startswith("jobbridge")} == ours
    assert modules & _ALL == set()
