from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.django.project import Project, start_project


@pytest.fixture
def project(tmp_path: Path, empty_database_url: str) -> Project:
    """A new project on a database in which nothing is."""
    return start_project(tmp_path, empty_database_url)
