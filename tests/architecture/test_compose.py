"""The files for containers hold together. They are not run here: that needs Docker."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.support import REPOSITORY

COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
LONG_RUNNING = [
    "postgres",
    "celery-worker",
    "beat",
    "dashboard",
    "temporal",
    "temporal-ui",
    "temporal-worker",
]


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_each_service_that_stays_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


def test_no_password_has_a_default() -> None:
    text = (REPOSITORY / "docker-compose.yml").read_text()
    for found in re.findall(r"(?m)^ *\w*(?:PASSWORD|PWD): *(.+)$", text):
        assert found == "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD}"
    assert not re.search(r"PASSWORD:-", text)
    assert not re.search(r"://[^:/\s{}$]+:[^@/\s{}$]+@", text)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_waits_for_services_that_exist(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        condition = how["condition"]
        assert condition in {"service_healthy", "service_completed_successfully"}
        assert condition != "service_healthy" or "healthcheck" in SERVICES[needed]


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


def test_the_image_is_built_with_the_uv_of_the_makefile() -> None:
    version = re.search(r"UV_VERSION := (\S+)", (REPOSITORY / "Makefile").read_text())
    assert version is not None
    assert f"uv=={version.group(1)}" in (REPOSITORY / "Dockerfile").read_text()
