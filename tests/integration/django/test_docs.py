"""Every code block of docs/django.md works as printed, in the order in which they stand."""

from __future__ import annotations

import shlex
from pathlib import Path

from tests.integration.django.project import Project, blocks, file_of
from tests.support import worker_process


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def test_djangos_page(project: Project, tmp_path: Path) -> None:
    rest = blocks("python")[len(blocks("python", "The first job")) :]
    for block in rest:
        if (file := file_of(block)) is not None:
            project.add(file, f"\n\n{block}")
    project.add("mysite/settings.py", 'INSTALLED_APPS += ["django_celery_beat"]\n')
    project.manage("migrate", "-v", "0")
    with worker_process(
        ["-m", "celery", "-A", "mysite", "worker", "-c", "1", "-l", "INFO"],
        name="worker", log_path=tmp_path / "worker.log", env=project.env(), cwd=project.folder,
    ):  # fmt: skip
        told = [project.shell(block).strip() for block in rest if file_of(block) is None]
    assert told == ["2", "Welcome, Ada, at the attempt 1", "0"]
    for text in blocks("sh")[1:]:
        for command in commands(text):
            assert project.manage(*command[2:]).returncode == 0
