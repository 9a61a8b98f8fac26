from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.django.project import DJANGO_6, OWN, Project, start_project

BOTH = [pytest.param(OWN, id="django 5"), pytest.param(DJANGO_6, id="django 6", marks=pytest.mark.long)]


@pytest.fixture(params=BOTH)
def project(request: pytest.FixtureRequest, tmp_path: Path, empty_database_url: str) -> Project:
    """A new project on a database in which nothing is, with each Django."""
    return start_project(tmp_path, empty_database_url, request.param)


@pytest.fixture
def project_on_5(tmp_path: Path, empty_database_url: str) -> Project:
    """The same with the Django that packages of others can have, which are not there for 6 yet."""
    return start_project(tmp_path, empty_database_url)
