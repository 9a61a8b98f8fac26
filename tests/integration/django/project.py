"""A Django project as `django-admin startproject` makes it, with the lines that docs/django.md prints."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from jobbridge.core.keys import Engine
from tests.support import REPOSITORY, clean_environment, worker_process

#: `make django6` makes it; the tests' own environment has the Django that all Pythons of ours can have.
DJANGO_6 = REPOSITORY / "build" / "django6" / "bin" / "python"
OWN = Path(sys.executable)

DOCS = (REPOSITORY / "docs" / "django.md").read_text()


def blocks(language: str, after: str = "", page: str = DOCS) -> list[str]:
    """Give the code blocks of that language in the section of the docs with that title; without one, in the page."""
    section = page
    if after:
        [section] = re.findall(rf"^## {re.escape(after)}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def file_of(block: str) -> str | None:
    """Give the file that a block is to stand in, by its first line; None: it is run."""
    found = re.match(r"# (\S+\.py)\n", block)
    return found[1] if found else None


def databases(url: str) -> str:
    """Write `DATABASES` for that database, at the end of a project's settings."""
    parts = urlsplit(url)
    default = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path[1:], "USER": parts.username, "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname, "PORT": str(parts.port),
    }  # fmt: skip
    return f"DATABASES = {{'default': {default!r}}}\n"


@dataclass
class Project:
    """A project in a folder.

    Attributes:
        python: Which runs it, and has its Django.
    """

    folder: Path
    python: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def is_django_6(self) -> bool:
        return self.python == DJANGO_6

    @property
    def settings(self) -> Path:
        return self.folder / "mysite" / "settings.py"

    def add(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text() if file.exists() else "") + text)

    def add_application(self, name: str, **files: str) -> None:
        """Add one of the project's own applications, and its modules."""
        self.add(f"{name}/__init__.py", "")
        for module, text in files.items():
            self.add(f"{name}/{module}.py", text)
        self.add("mysite/settings.py", f"INSTALLED_APPS += [{name!r}]\n")

    def manage(
        self, *arguments: str, succeeds: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.python, "manage.py", *arguments],
            cwd=self.folder, env=self.env(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert not succeeds or done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done

    def shell(self, program: str) -> str:
        """Run a program as `manage.py shell -c`; gives its output."""
        return self.manage("shell", "-v", "0", "-c", program).stdout

    def with_its_tasks(self, text: str) -> str:
        """Write code for Django 6's own tasks as this project's Django has them."""
        if self.is_django_6:
            return text
        return re.sub(r"(?<!jobbridge\.)django\.tasks", "django_tasks", text).replace(
            "InvalidTask", "InvalidTaskError"
        )

    @contextmanager
    def worker(self, engine: Engine, *options: str) -> Iterator[None]:
        """Run a worker of that engine until the block ends."""
        argv = {
            Engine.CELERY: ["-m", "celery", "-A", "mysite", "worker"],
            Engine.TEMPORAL: ["manage.py", "jobbridge", "temporal-worker"],
        }[engine]
        with worker_process(
            [*argv, "-c", "1", "-l", "INFO", *options],
            name="worker", log_path=self.folder / "worker.log", env=self.env(), cwd=self.folder,
            python=None if self.python == OWN else self.python,
        ):  # fmt: skip
            yield

    def env(self) -> dict[str, str]:
        return clean_environment({"PYTHONPATH": str(self.folder), **self.environment})


def start_project(folder: Path, url: str, python: Path = OWN) -> Project:
    assert python.exists(), f"There is no {python}: run `make setup`"
    subprocess.run(
        [python, "-m", "django", "startproject", "mysite", str(folder)],
        env=clean_environment(),
        check=True,
    )
    project = Project(folder, python)
    project.add("mysite/settings.py", databases(url))
    project.add_application("shop")
    for block in blocks("python", "The first job"):
        project.add(str(file_of(block)), block)
    return project
