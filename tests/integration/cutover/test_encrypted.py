"""With keys, what moves is opened and sealed again: each side has its own way to carry it."""

from __future__ import annotations

import base64
import os

import pytest

from jobbridge.core.keys import Engine
from tests.integration.cutover.conftest import Sides
from tests.integration.cutover.test_between_engines import THERE_AND_BACK

KEYS = {"JOBBRIDGE_ENCRYPTION_KEYS": f"one:{base64.b64encode(os.urandom(32)).decode()}"}
SECRET = "called-Ekaterina"


@pytest.mark.parametrize("sides", [KEYS], indirect=True, ids=["keys"])
@pytest.mark.parametrize(("origin", "to"), THERE_AND_BACK, ids=["to temporal", "to celery"])
def test_what_is_encrypted_moves_and_stays_so(sides: Sides, origin: Engine, to: Engine) -> None:
    sent = [sides.send(SECRET, origin), sides.send(f"{SECRET}-too", origin, serializer="pickle")]

    assert "Both sides agree" in sides.moved("--to", str(to))

    kept = sides.looking.rows(
        "SELECT job::text AS text FROM jobs AS job UNION ALL "
        "SELECT encode(body, 'escape') || headers::text FROM jobbridge_broker.messages"
    )
    assert [row for row in kept if SECRET in row["text"]] == []
    sides.worker(to)
    for task_id in sent:
        sides.wait_for_status(task_id, "completed")
    assert sides.ran() == {SECRET: 1, f"{SECRET}-too": 1}
