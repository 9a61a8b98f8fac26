"""A new project gets its first job with the lines that docs/django.md prints, on both engines."""

from __future__ import annotations

import shlex

import pytest

from jobbridge.core.keys import Engine
from tests.integration.django.project import Project, blocks


def commands() -> list[list[str]]:
    [text] = blocks("sh", "The first job")
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def test_the_lines_are_six() -> None:
    settings, celery, _ = blocks("python", "The first job")
    lines = [line for line in (settings + celery).splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) == 6


@pytest.mark.parametrize("engine", [Engine.CELERY, Engine.TEMPORAL], ids=str)
def test_the_first_job_as_the_docs_print_it(
    project: Project, engine: Engine, task_queue: str, request: pytest.FixtureRequest
) -> None:
    migrate, worker, send, listed = commands()
    project.environment = {"JOB_RUNNER_TYPE": engine.value, "TEMPORAL_JOB_TASK_QUEUE": task_queue}
    if engine is Engine.TEMPORAL:
        project.environment["TEMPORAL_ADDRESS"] = request.getfixturevalue("temporal_server")
    told = project.manage(*migrate[2:]).stdout
    assert "Migrating JobBridge's tables: none" in told
    project.manage("migrate", "--check")  # Django's own are where the next session finds them
    assert "JobBridge" not in project.manage(*migrate[2:]).stdout  # a second time there is nothing to do

    assert worker == ["celery", "-A", "mysite", "worker"]  # as `project.worker` runs it
    with project.worker(engine):
        assert project.manage(*send[2:]).stdout.strip().splitlines()[-1] == "5"
    rows = project.manage(*listed[2:]).stdout
    assert "shop.tasks.add" in rows
    assert f"{engine.value} " in rows
    assert "completed" in rows
