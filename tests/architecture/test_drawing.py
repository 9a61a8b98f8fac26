"""The drawing of the rooms in docs/development.md is true."""

from __future__ import annotations

import ast
import re
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker

import jobbridge
from jobbridge import Celery
from jobbridge.settings import load_settings
from tests.architecture.drawing import Station, layers, way
from tests.support import REPOSITORY

PACKAGE = Path(jobbridge.__file__).parent
STATIONS = {f"{each.path}:{each.name}": each for engine in ("Celery", "Temporal") for each in way(engine)}


def test_every_room_is_drawn() -> None:
    drawn = layers()
    folders = {
        layer: {each.name for each in (PACKAGE / layer).iterdir() if (each / "__init__.py").is_file()}
        for layer in drawn.keys() - {"core"}
        if (PACKAGE / layer).is_dir()
    }
    assert {layer: set(rooms) for layer, rooms in drawn.items() if rooms} == {
        layer: rooms for layer, rooms in folders.items() if rooms
    }


def test_the_layers_stand_as_import_linter_holds_them() -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    assert list(layers()) == [name for layer in contracts[0]["layers"] for name in re.findall(r"\w+", layer)]


@pytest.mark.parametrize("station", STATIONS.values(), ids=STATIONS)
def test_a_station_is_there_and_its_caller_calls_it(station: Station) -> None:
    assert code_of(station)
    if station.caller is not None:
        *owner, function = station.name.split(".")
        called = rf"\b_?{function}\b|\b{owner[0]}\(" if owner else rf"\b{function}\b"
        assert re.search(called, code_of(station.caller)), f"{station.caller.name} does not call it"


def test_a_job_passes_the_stations_in_their_order(database_url: str) -> None:
    app = Celery("drawn", settings=load_settings({"DATABASE_URL": database_url}))

    @app.task(name="drawn.add")
    def add(left: int, right: int) -> int:
        return left + right

    with passing() as passed, start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
        assert add.delay(2, 3).get(timeout=60) == 5
    app.close()
    rest = iter(passed)
    for station in way("Celery"):
        assert any(is_at(code, station) for code in rest), (
            f"it does not come to {station.path}: {station.name}"
        )


def code_of(station: Station) -> str:
    """Give the code of a station, which must be there."""
    text = (PACKAGE / station.path).read_text(encoding="utf-8")
    node: Any = ast.parse(text)
    for name in station.name.split("."):
        node = next((each for each in node.body if getattr(each, "name", None) == name), None)
        assert node is not None, f"{station.path} has no {station.name}"
    return ast.get_source_segment(text, node) or ""


@contextmanager
def passing() -> Iterator[list[CodeType]]:
    """Note each function of jobbridge that any thread calls from here on, in their order."""
    calls: list[CodeType] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(PACKAGE)):
            calls.append(frame.f_code)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # it takes None, the stubs do not know


def is_at(code: CodeType, station: Station) -> bool:
    return code.co_filename == str(PACKAGE / station.path) and code.co_qualname.startswith(station.name)
