"""What a worker writes of results, errors and arguments is without secrets, on both engines."""

from __future__ import annotations

import uuid

from tests.parity.conftest import World
from tests.support import wait_until


def _log(world: World) -> str:
    return "".join(path.read_text(errors="replace") for path in world.folder.parent.glob("*.log"))


def test_results_and_tracebacks_are_written_without_secrets(world: World) -> None:
    secret = f"hunter{uuid.uuid4().hex}"
    value = {
        "password": secret,
        "url": f"postgres://u:{secret}@db/x",
        "header": f"authorization=Bearer {secret}",
    }

    returned = world.task("echo").delay(value)
    failed = world.task("fail").delay(f"cannot connect: {value}")

    assert returned.get(timeout=30) == value
    for result, word in ((returned, "succeeded"), (failed, "raised unexpected")):
        line = f"[{result.id}] {word}"
        wait_until(lambda line=line: line in _log(world) or None, message=line)
    wait_until(lambda: "ValueError(" in _log(world) or None, message="the error's text")
    log = _log(world)
    assert "cannot connect" in log
    assert "•••" in log
    assert secret not in log
