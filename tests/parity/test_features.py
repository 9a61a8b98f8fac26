"""The rest of what Celery's users know: limits, stamps, remote control, signals, other serializers."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from celery import chain
from celery.canvas import StampingVisitor
from celery.exceptions import TaskRevokedError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.forked import run_python
from tests.parity.conftest import World
from tests.parity.feature_tasks import SIGNALS  # and its tasks are the app's
from tests.support import clean_environment, wait_until

TIMEOUT = 30


class Stamped(StampingVisitor):
    def __init__(self, value: str) -> None:
        self._value = value

    def on_signature(self, signature: Any, **headers: Any) -> dict[str, Any]:
        return {"monitoring": self._value}


def stamped(world: World, value: str, **options: Any) -> Any:
    signature = world.task("stamps").si(waits=bool(options.pop("waits", False))).set(**options)
    signature.stamp(Stamped(value))
    return signature.delay()


def test_a_rate_limit_holds_back_what_is_over_it(world: World) -> None:
    sent = [world.task("limited").delay(number) for number in range(4)]

    assert [each.get(timeout=TIMEOUT) for each in sent] == [0, 1, 2, 3]
    started = sorted(world.wait_for_status(each.id, "completed")["started_at"] for each in sent)
    assert started[-1] - started[0] >= dt.timedelta(seconds=1.3), "two a second, and one at once"


def test_stamps_reach_the_task(world: World) -> None:
    assert stamped(world, "m-1").get(timeout=TIMEOUT) == {"monitoring": "m-1"}


def test_what_has_a_stamp_is_revoked_while_it_runs_and_later(world: World) -> None:
    running, other = stamped(world, "m-2", waits=True), stamped(world, "m-3", waits=True)
    for each in (running, other):
        wait_until(lambda each=each: world.lines(each, "stamps"), timeout=TIMEOUT)

    world.app.control.revoke_by_stamped_headers({"monitoring": ["m-2"]}, terminate=True)

    with pytest.raises(TaskRevokedError):
        running.get(timeout=TIMEOUT)
    with pytest.raises(TaskRevokedError):
        stamped(world, "m-2").get(timeout=TIMEOUT)
    assert world.wait_for_status(running.id, "cancelled")["attempt"] == 1
    world.release(other)
    assert other.get(timeout=TIMEOUT) == {"monitoring": "m-3"}


def test_a_promise_is_kept_when_its_result_is_there(world: World) -> None:
    told: list[Any] = []
    result = world.task("echo").delay("promised")

    result.then(told.append)
    result.get(timeout=TIMEOUT)

    assert told == [result]


def test_a_result_tells_what_came_of_it(world: World) -> None:
    add, fail = world.task("add"), world.task("fail")

    result = chain(add.s(1, 1), add.s(2)).delay()
    failed = fail.delay("broken")

    assert result.wait(timeout=TIMEOUT) == 4
    first = result.parent
    assert (first.ready(), first.successful(), first.failed(), first.status) == (True, True, False, "SUCCESS")
    assert [value for _, value in first.collect(timeout=TIMEOUT)] == [2, 4]
    assert [child.id for child in first.children] == [result.id]
    assert first.get_leaf() == 4
    assert failed.wait(timeout=TIMEOUT, propagate=False).args == ("broken",)
    assert "ValueError: broken" in failed.traceback
    assert (failed.failed(), str(failed.info)) == (True, "broken")


def test_msgpack(world: World) -> None:
    value = {"n": 1, "bytes": b"\x00\xff"}

    assert world.task("echo").apply_async([value["n"]], serializer="msgpack").get(timeout=TIMEOUT) == 1


def test_remote_control_changes_a_running_worker(own_world: World) -> None:
    own_world.worker("-P", "prefork", "-c", "1")
    control = own_world.app.control

    def answers(replies: Any) -> list[Any]:
        return [answer for reply in replies for answer in reply.values()]

    assert answers(control.rate_limit("parity.limited", "100/s", reply=True, timeout=10, limit=1)) == [
        {"ok": "new rate limit set successfully"}
    ]
    assert answers(control.time_limit("parity.takes", soft=1, reply=True, timeout=10, limit=1)) == [
        {"ok": "time limits set successfully"}
    ]
    assert answers(control.pool_grow(1, reply=True, timeout=10, limit=1)) == [{"ok": "pool will grow"}]
    holding = [own_world.task("hold").delay() for _ in range(2)]
    for each in holding:
        wait_until(lambda each=each: own_world.lines(each, "hold.pids"), timeout=TIMEOUT)
    for each in holding:
        own_world.release(each)
        assert each.get(timeout=TIMEOUT) == 1

    assert answers(control.pool_shrink(1, reply=True, timeout=10, limit=1)) == [{"ok": "pool will shrink"}]

    (added,) = answers(control.add_consumer("afterwards", reply=True, timeout=10, limit=1))
    assert "ok" in added
    assert own_world.task("add").apply_async([1, 2], queue="afterwards").get(timeout=TIMEOUT) == 3
    (cancelled,) = answers(control.cancel_consumer("afterwards", reply=True, timeout=10, limit=1))
    assert "ok" in cancelled
    waits = own_world.task("add").apply_async([1, 2], queue="afterwards")
    assert own_world.task("add").delay(3, 4).get(timeout=TIMEOUT) == 7
    assert own_world.row(waits.id)["status"] == "queued"


def test_a_queue_is_served_again_while_a_job_of_it_runs(own_world: World) -> None:
    worker = own_world.worker("-P", "prefork", "-c", "2", "-Q", "celery,again")
    control = own_world.app.control
    held = own_world.task("hold").apply_async(queue="again")
    wait_until(lambda: own_world.lines(held, "hold.pids"), timeout=TIMEOUT)

    for command in (control.cancel_consumer, control.add_consumer):
        assert command("again", reply=True, timeout=10, limit=1)

    assert own_world.task("add").apply_async([1, 2], queue="again").get(timeout=TIMEOUT) == 3
    assert "Polling the task queue" not in worker.log(), "it failed at first"
    own_world.release(held)
    assert held.get(timeout=TIMEOUT) == 1


def test_all_signals_of_celerys_fire_and_processes_are_recycled(own_world: World) -> None:
    own_world.module = "tests.parity.signals_app"
    recycled = ("--max-tasks-per-child", "1", "--heartbeat-interval", "1")
    worker = own_world.worker("-P", "prefork", "-c", "1", *recycled)
    pids = {own_world.task("pid").delay().get(timeout=TIMEOUT) for _ in range(2)}
    assert len(pids) == 2
    own_world.task("watched").delay("retry").get(timeout=TIMEOUT)
    failed, unknown = own_world.task("watched").delay("failure"), own_world.app.send_task("parity.nobody")
    held = own_world.task("hold").delay()
    wait_until(lambda: own_world.lines(held, "hold.pids"), timeout=TIMEOUT)
    held.revoke(terminate=True)
    for each, status in ((failed, "failed"), (unknown, "failed"), (held, "cancelled")):
        own_world.wait_for_status(each.id, status)

    def missing() -> set[str]:
        return SIGNALS - set((own_world.folder / "signals").read_text().split())

    wait_until(lambda: missing() <= {"worker_shutting_down", "worker_shutdown"}, message=str(missing()))
    worker.stop()
    assert missing() == set()


def test_processes_that_have_grown_are_recycled(own_world: World) -> None:
    own_world.worker("-P", "prefork", "-c", "1", "--max-memory-per-child", "1")

    assert len({own_world.task("pid").delay().get(timeout=TIMEOUT) for _ in range(2)}) == 2


def test_signed_messages(own_world: World) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "parity")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(7).not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (own_world.folder / "key.pem").write_bytes(private)
    for file in ("certificate.pem", "trusted.crt"):
        (own_world.folder / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    own_world.module = "tests.parity.signed_app"
    own_world.worker("-P", "threads")

    # A process of its own: to set it up changes what all of a process accepts.
    program = (
        "from tests.parity.signed_app import app; print(app.send_task('parity.add', [1, 2]).get(timeout=30))"
    )
    done = run_python(["-c", program], env=clean_environment(own_world.environment), timeout=60)

    assert done.stdout.strip() == "3", done.stderr
    unsigned = own_world.task("add").apply_async([1, 2], serializer="yaml")
    row = own_world.wait_for_status(unsigned.id, "failed")
    assert "ContentDisallowed" in row["error"] or "untrusted" in row["error"], row["error"]
