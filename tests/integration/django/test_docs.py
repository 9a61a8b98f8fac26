"""Every code block of docs/django.md works as printed, in the order in which they stand."""

from __future__ import annotations

import shlex

from jobbridge.core.keys import Engine
from tests.integration.django.project import Project, blocks, file_of


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def test_djangos_page(project: Project) -> None:
    rest = blocks("python")[len(blocks("python", "The first job")) :]
    for block in rest:
        if (file := file_of(block)) is not None:
            project.add(file, f"\n\n{project.with_its_tasks(block)}")
    if not project.is_django_6:
        project.add("mysite/settings.py", 'INSTALLED_APPS += ["django_celery_beat", "django_tasks"]\n')
    project.manage("migrate", "-v", "0")
    with project.worker(Engine.CELERY):
        told = [
            project.shell(project.with_its_tasks(block)).strip() for block in rest if file_of(block) is None
        ]
    assert told == ["2", "Welcome, Ada, at the attempt 1", "0"]
    for text in blocks("sh")[1:]:
        for command in commands(text):
            if project.is_django_6 and "django-celery-beat" in command:
                continue  # it is not there for Django 6 yet
            assert project.manage(*command[2:]).returncode == 0
