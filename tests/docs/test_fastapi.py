"""docs/fastapi.md, as printed: its first job through both engines."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from jobbridge.dev.process import free_port
from jobbridge.dev.temporal import TemporalServer
from tests.docs.blocks import blocks_of, commands_of
from tests.docs.terminal import Terminal
from tests.support import wait_until

PAGE = "fastapi.md"
JOBS = "SELECT runner_type, status, result #>> '{}' FROM jobs ORDER BY created_at"


@pytest.mark.long  # two workers, two servers: whole programs, as a user starts them
def test_a_new_projects_first_job_goes_through_both_engines(
    open_folder: Path, empty_database_url: str, temporal: TemporalServer
) -> None:
    port = free_port()
    instead = {
        "postgresql://shop:secret@localhost:5432/shop": empty_database_url,
        "127.0.0.1:7233": temporal.address,
        "uvicorn shop:app": f"uvicorn shop:app --port {port}",
        "127.0.0.1:8000": f"127.0.0.1:{port}",
        "curl": "curl -fsS",
    }
    programs = [block for block in blocks_of(PAGE) if block.title is not None]
    for block in programs:
        (open_folder / str(block.title)).write_text(block.text)
    settings = {"TEMPORAL_JOB_TASK_QUEUE": "docs-fastapi", "no_proxy": "127.0.0.1"}

    with closing(Terminal(open_folder, settings, instead)) as terminal:
        for block in blocks_of(PAGE):
            if block.language == "sh":
                for command in commands_of(block):
                    terminal.type(command)
        wait_until(
            lambda: (
                _jobs(empty_database_url)
                == [("celery", "completed", "tea"), ("temporal", "completed", "coffee")]
            )
        )
        terminal.type("python cup.py")
        assert terminal.printed[-1].strip() == "cup"
    assert all(block.title for block in blocks_of(PAGE) if block.language == "python"), (
        "each program was a file"
    )


def _jobs(url: str) -> list[tuple[str, str, str]]:
    with psycopg.connect(url) as connection:
        return [(engine, status, result) for engine, status, result in connection.execute(JOBS)]
