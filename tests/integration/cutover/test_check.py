"""What will not work on the other side is told before anything is moved."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.cutover.conftest import Sides


def findings(sides: Sides, to: str, *, code: int, **settings: str) -> dict[str, Any]:
    told = sides.moved("check", "--to", to, "--json", code=code, **settings)
    read = json.JSONDecoder().raw_decode(told, told.index("{"))[0]
    return {each["what"]: each for each in read["findings"]}


def test_what_nobody_could_run_there_is_named(sides: Sides) -> None:
    sides.send("known", "celery")
    sides.send("pickled", "celery", serializer="pickle")
    sides.send("elsewhere", "celery", queue="reports")
    sides.app.send_task("cutover.unknown", engine="celery", args=("x" * 300_000,))
    sides.app.schedules.create(
        "cutover.run", "0 4 * * *", {"kwargs": {"name": "s"}}, name="nightly", queue="night"
    )

    nobody = findings(sides, "temporal", code=1)
    assert "no temporal worker runs" in nobody["workers"]["why"]

    sides.worker("temporal")
    found = findings(sides, "temporal", code=1)

    assert "knows this task" in found["1 job(s) of cutover.unknown"]["why"]
    assert "serves the queue 'reports'" in found["1 job(s) of cutover.run"]["why"]
    assert "serves the queue 'night'" in found["the schedule nightly of cutover.run"]["why"]
    assert found["1 job(s) sent as application/x-python-serialize"]["level"] == "note"
    assert found["1 job(s) of more than 256 kB"]["level"] == "note"
    assert found["JOB_RUNNER_TYPE"]["level"] == "warning"
    assert {each["level"] for each in found.values()} == {"error", "warning", "note"}


def test_temporal_that_is_away_is_named_and_jobs_can_leave_it(sides: Sides) -> None:
    sides.send("one", "celery")

    away = findings(sides, "temporal", code=1, TEMPORAL_ADDRESS="127.0.0.1:1")
    assert "cannot be reached" in away["Temporal"]["why"]
    assert sides.row(sides.rows()[0]["task_id"])["runner_type"] == "celery"

    sides.moved("--to", "temporal", code=4, TEMPORAL_ADDRESS="127.0.0.1:1")
    assert sides.messages() == 1
    sides.moved("--to", "temporal")
    told = sides.moved("--to", "celery", TEMPORAL_ADDRESS="127.0.0.1:1")
    assert "Temporal was not asked" in told
    assert (sides.messages(), sides.rows()[0]["runner_type"]) == (1, "celery")
    assert "1 workflow(s)" in sides.moved("--to", "celery")
