"""A Django project as `django-admin startproject` makes it, with the lines that docs/django.md prints."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.support import REPOSITORY, clean_environment

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
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

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
            [sys.executable, "manage.py", *arguments],
            cwd=self.folder, env=self.env(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert not succeeds or done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done

    def shell(self, program: str) -> str:
        """Run a program as `manage.py shell -c`; gives its output."""
        return self.manage("shell", "-v", "0", "-c", program).stdout

    def env(self) -> dict[str, str]:
        return clean_environment({"PYTHONPATH": str(self.folder), **self.environment})


def start_project(folder: Path, url: str) -> Project:
    subprocess.run(
        [sys.executable, "-m", "django", "startproject", "mysite", str(folder)],
        env=clean_environment(),
        check=True,
    )
    project = Project(folder)
    project.add("mysite/settings.py", databases(url))
    project.add_application("shop")
    for block in blocks("python", "The first job"):
        project.add(str(file_of(block)), block)
    return project
