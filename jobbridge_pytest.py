"""The pytest plugin of JobBridge's test kit (entry point `pytest11`); see docs/testing.md.

pytest loads it in every project where JobBridge is installed, so it is outside the package and imports nothing of it
before a fixture is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jobbridge.testing.kit import Jobs
    from jobbridge.testing.servers import Servers

ENGINES = ("inline", "ce", "ee")
_MARK = "jobbridge(engines=[...], app=None): run the test, which asks for the fixture `jobbridge`, on these engines"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(
        "jobbridge_app", "The application under test: module, module:attribute, or package.", default=""
    )
    parser.addini(
        "jobbridge_database_url", "A Postgres where databases may be made; else one is started.", default=""
    )
    parser.addini(
        "jobbridge_engines", "What the fixture `jobbridge` stands for without a mark.", "args", ["inline"]
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARK)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each engine that its mark names."""
    if "jobbridge" not in metafunc.fixturenames:
        return
    definition = getattr(metafunc, "_arg2fixturedefs", {}).get("jobbridge", ())
    if definition and definition[-1].func.__module__ != __name__:
        return  # the project has a fixture of that name
    mark = metafunc.definition.get_closest_marker("jobbridge")
    engines = list(mark.kwargs.get("engines", mark.args[0] if mark.args else ())) if mark else []
    engines = engines or list(metafunc.config.getini("jobbridge_engines"))
    unknown = sorted(set(engines) - set(ENGINES))
    if unknown:
        raise pytest.UsageError(
            f"@pytest.mark.jobbridge of {metafunc.definition.nodeid} names {', '.join(unknown)}; there are "
            f"{', '.join(ENGINES)}."
        )
    metafunc.parametrize("jobbridge", engines, indirect=True)


@pytest.fixture(scope="session")
def jobbridge_servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Servers]:
    """Postgres and Temporal of this test process: each is started when the first test needs it."""
    from jobbridge.testing.servers import Servers

    with Servers(request.config.getini("jobbridge_database_url") or None) as servers:
        yield servers


@pytest.fixture
def jobbridge_app(request: pytest.FixtureRequest) -> Any:
    """The application under test: the fixture `celery_app`, the ini option `jobbridge_app`, or the process's.

    A project may have its own fixture of this name.
    """
    from jobbridge.testing.apps import app_of

    found = request.getfixturevalue("celery_app") if _has_celery_app(request) else None
    mark = request.node.get_closest_marker("jobbridge")
    named = (mark.kwargs.get("app") if mark else None) or request.config.getini("jobbridge_app")
    return app_of(found, named)


def _has_celery_app(request: pytest.FixtureRequest) -> bool:
    """Whether the project has one; Celery's own (celery.contrib.pytest) makes a plain app of nobody."""
    found = request._fixturemanager.getfixturedefs("celery_app", request.node)
    return found is not None and len(found) > 0 and found[-1].func.__module__ != "celery.contrib.pytest"


@pytest.fixture
def jobbridge_database(jobbridge_app: Any, jobbridge_servers: Servers) -> Iterator[str]:
    """The URL of this test's own database, at which the app is; who runs its jobs is the test's matter."""
    from jobbridge.testing.apps import rebound

    with jobbridge_servers.database() as url, rebound(jobbridge_app, database_url=url):
        yield url


@pytest.fixture
def jobbridge_inline(jobbridge_app: Any, jobbridge_servers: Servers) -> Iterator[Jobs]:
    """Jobs run in the test's own thread, when they are sent (or by `drain()`), with rows in a real Postgres."""
    from jobbridge.testing.engines import opened

    with opened("inline", jobbridge_app, jobbridge_servers) as jobs:
        yield jobs


@pytest.fixture
def jobbridge_ce(jobbridge_app: Any, jobbridge_servers: Servers) -> Iterator[Jobs]:
    """A Celery worker of the app, in threads of this process, over the broker in Postgres."""
    from jobbridge.testing.engines import opened

    with opened("ce", jobbridge_app, jobbridge_servers) as jobs:
        yield jobs


@pytest.fixture
def jobbridge_ee(jobbridge_app: Any, jobbridge_servers: Servers) -> Iterator[Jobs]:
    """A Temporal worker of the app, in threads of this process, over Temporal's development server."""
    from jobbridge.testing.engines import opened

    with opened("ee", jobbridge_app, jobbridge_servers) as jobs:
        yield jobs


@pytest.fixture
def jobbridge(request: pytest.FixtureRequest) -> Iterator[Jobs]:
    """The engine that the mark `jobbridge` names: the same test on each of them."""
    from jobbridge.testing.engines import opened

    engine: str = request.param
    app = request.getfixturevalue("jobbridge_app")
    with opened(engine, app, request.getfixturevalue("jobbridge_servers")) as jobs:
        yield jobs
