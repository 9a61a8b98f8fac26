"""Batches: jobs that are sent in a block, or join it later; and what follows, once, when all have ended."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable
from typing import Any, LiteralString

import pytest
from celery import chain, chord, group

import jobbridge
from jobbridge.app.batches.batch import Batch
from jobbridge.app.batches.batches import Batches
from jobbridge.errors import BatchEnded, BatchNotFound, UnsupportedOption
from jobbridge.store.batches.progress import BatchState
from tests.parity import import_tasks  # noqa: F401  (shared tasks, of every app)
from tests.parity.conftest import World
from tests.support import wait_until


@pytest.fixture
def tag() -> str:
    return uuid.uuid4().hex


def _release(world: World, waiting: Any) -> None:
    """Let a job go on that waits, as soon as it has begun to."""
    wait_until(lambda: (world.folder / waiting.id).exists(), message="it has begun")
    world.release(waiting)


def _begun(world: World, tag: str, name: str = "import") -> Batch:
    followed = world.task("import_followed")
    return jobbridge.batch(
        name,
        on_success=followed.si("success", tag),
        on_failure=followed.si("failure", tag),
        on_complete=followed.si("complete", tag),
        app=world.app,
    )


def _followed(world: World, tag: str) -> list[str]:
    """Say what has followed so far, as it was sent."""
    rows = world.rows("type = 'parity.import_followed' AND metadata -> 'data' -> 'args' ->> 1 = %s", tag)
    return sorted(row["metadata"]["data"]["args"][0] for row in rows)


def _wait_until_ended(world: World, batch: Batch, tag: str, state: BatchState, *, total: int) -> None:
    def ended() -> bool:
        progress = batch.progress()
        assert progress.state is state, progress
        return True

    wait_until(ended, timeout=60, message=f"the batch is {state.value}")
    good = ["complete", "success"] if state is BatchState.COMPLETED else ["complete", "failure"]
    assert _followed(world, tag) == good
    progress = batch.progress()
    assert (progress.total, progress.open, progress.percent) == (total, 0, 100.0 if total else 0.0)


def test_what_follows_is_sent_once_when_the_block_and_all_jobs_have_ended(world: World, tag: str) -> None:
    with _begun(world, tag) as batch:
        quick = world.task("imported").delay(1)
        assert quick.get(timeout=30) == 1
        waiting = world.task("import_waits").delay()
        assert not world.app.batches.attend(uuid.UUID(batch.id))
        assert batch.progress().state is BatchState.OPEN
    progress = batch.progress()
    assert (progress.name, progress.state, progress.total) == ("import", BatchState.SEALED, 2)
    assert (progress.completed, progress.open, progress.percent) == (1, 1, 50.0)
    assert _followed(world, tag) == []

    _release(world, waiting)

    _wait_until_ended(world, batch, tag, BatchState.COMPLETED, total=2)
    with (
        pytest.raises(BatchEnded, match="is completed"),
        jobbridge.batch.open(batch.id, app=world.app),
    ):
        pass
    with pytest.raises(BatchEnded):
        jobbridge.batch.open(batch.id, app=world.app).add(world.task("imported").s(2))


def test_jobs_that_do_not_complete_are_told_and_may_be_run_again(world: World, tag: str) -> None:
    with _begun(world, tag) as batch:
        world.task("imported").delay(1)
        wrong = world.task("import_fails").delay({"row": 2})

    _wait_until_ended(world, batch, tag, BatchState.FAILED, total=2)
    row = world.row(wrong.id)
    assert (row["attempt"], str(row["batch_id"])) == (2, batch.id)  # its retry stays in the batch

    world.release(wrong, "mended")
    world.app.retry_job(wrong.id)
    world.wait_for_status(wrong.id, "completed")
    again = world.app.retry_job(wrong.id, as_new=True)
    assert world.row(str(again.job_id))["batch_id"] is None
    assert _followed(world, tag) == ["complete", "failure"]


def test_its_jobs_add_more_and_so_does_whoever_knows_it(world: World, tag: str) -> None:
    with _begun(world, tag) as batch:
        first = world.task("import_adds").delay(batch.id, 3)
        holds = world.task("import_waits").delay()
    with jobbridge.batch.open(batch.id, app=world.app):
        world.task("imported").delay(9)
    assert first.get(timeout=30) == batch.id
    _release(world, holds)

    _wait_until_ended(world, batch, tag, BatchState.COMPLETED, total=9)


def test_all_of_a_canvas_belongs_to_it(world: World, tag: str) -> None:
    imported, link = world.task("imported"), world.task("import_link")
    with _begun(world, tag) as batch:
        chain(imported.s(1), link.s(2), link.s(3)).apply_async()
        group(imported.s(number) for number in range(3)).apply_async()
        chord([imported.s(1), imported.s(2)], link.s(3)).apply_async()

    _wait_until_ended(world, batch, tag, BatchState.COMPLETED, total=9)
    assert not world.looking.rows("SELECT chord_id FROM job_chords WHERE batch_id = %s", (batch.id,))


def test_thousands_of_jobs_make_one_batch(world: World, tag: str) -> None:
    number = 2_000 if world.engine == "celery" else 300
    with _begun(world, tag) as batch, world.app.bulk():
        for row in range(number):
            world.task("imported").delay(row)

    _wait_until_ended(world, batch, tag, BatchState.COMPLETED, total=number)


def test_a_cancelled_batch_cancels_its_jobs_and_nothing_follows(world: World, tag: str) -> None:
    with _begun(world, tag) as batch:
        done = world.task("imported").delay(1)
        done.get(timeout=30)
        running = world.task("import_waits").delay("never")
        later = world.task("imported").apply_async((2,), countdown=3600)
    assert batch.cancel(reason="wrong file", cancelled_by="ann")

    assert {world.row(each.id)["status"] for each in (running, later)} == {"cancelled"}
    progress = batch.progress()
    assert (progress.state, progress.reason, progress.completed, progress.failed) == (
        BatchState.CANCELLED, "wrong file", 1, 2,
    )  # fmt: skip
    assert not batch.cancel()
    with pytest.raises(BatchEnded), batch:
        pass
    assert _followed(world, tag) == []


def test_a_block_that_ends_by_an_exception_cancels_its_batch(world: World, tag: str) -> None:
    batch, sent = _begun(world, tag), []

    def sends_a_part() -> None:
        with batch:
            sent.append(world.task("imported").apply_async((2,), countdown=3600))
            raise LookupError("row 3 is missing")

    with pytest.raises(LookupError):
        sends_a_part()

    assert world.row(sent[0].id)["status"] == "cancelled"
    assert batch.progress().reason == "Its block ended by LookupError: row 3 is missing"
    assert _followed(world, tag) == []


def test_a_batch_without_jobs_ends_with_its_block(world: World, tag: str) -> None:
    with _begun(world, tag) as batch:
        pass

    assert batch.progress().state is BatchState.COMPLETED
    assert _followed(world, tag) == ["complete", "success"]


def test_in_a_callers_transaction_it_is_all_or_nothing(world: World, tag: str) -> None:
    gone, kept = _begun(world, tag), _begun(world, tag)

    def send(batch: Batch, *, fails: bool) -> None:
        with world.app.database.transaction() as connection, world.app.enqueue_on(connection):
            with batch:
                world.task("imported").delay(1)
            if fails:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        send(gone, fails=True)
    with pytest.raises(BatchNotFound):
        gone.progress()

    send(kept, fails=False)

    _wait_until_ended(world, kept, tag, BatchState.COMPLETED, total=1)


def test_what_makes_no_sense_is_refused(world: World) -> None:
    with pytest.raises(UnsupportedOption, match="no signature"):
        jobbridge.batch("import", on_success=len, app=world.app)
    with pytest.raises(UnsupportedOption, match="no uuid"):
        jobbridge.batch.open("import", app=world.app)
    with pytest.raises(BatchNotFound), jobbridge.batch.open(uuid.uuid4(), app=world.app):
        pass


def test_in_a_coroutine_it_is_the_same(world: World, tag: str) -> None:
    batch = _begun(world, tag)

    async def send() -> None:
        async with batch:
            await world.task("imported").adelay(1)

    asyncio.run(send())

    _wait_until_ended(world, batch, tag, BatchState.COMPLETED, total=1)


# -- deaths


class ProcessDiedError(BaseException):
    """Nothing catches it, and nothing is tidied up."""


def _due(world: World, tag: str, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """Have a batch that waits for nothing, and at which nobody looks: it has no jobs, and is too young for a sweep."""
    with monkeypatch.context() as patched:
        patched.setattr(world.app.batches, "attend_safely", lambda batch_id: None)
        with _begun(world, tag) as batch:
            _made_at(world, batch, "now() + interval '1 hour'")
    return batch


@pytest.mark.parametrize("sent", [0, 1, 2])
def test_who_dies_while_it_sends_what_follows_has_sent_nothing(
    world: World, tag: str, sent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = _due(world, tag, monkeypatch)
    numbers = iter(range(10))
    original: Callable[..., Any] = world.app.send_task

    def send_task(*args: Any, **options: Any) -> Any:
        if next(numbers) == sent:
            raise ProcessDiedError
        return original(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(world.app, "send_task", send_task)
        if sent == 2:  # all are sent, and the process dies before the commit
            call_back = Batches._call_back

            def dies(self: Batches, *args: Any, **options: Any) -> None:
                call_back(self, *args, **options)
                raise ProcessDiedError

            patched.setattr(Batches, "_call_back", dies)
        with pytest.raises(ProcessDiedError):
            world.app.batches.attend(uuid.UUID(batch.id))
    assert _followed(world, tag) == []
    assert batch.progress().state is BatchState.SEALED

    assert world.app.batches.attend(uuid.UUID(batch.id))
    assert not world.app.batches.attend(uuid.UUID(batch.id))
    _wait_until_ended(world, batch, tag, BatchState.COMPLETED, total=0)


def test_the_sweep_ends_what_nobody_looked_at(
    world: World, tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = _due(world, tag, monkeypatch)
    _made_at(world, batch, "now() - interval '1 minute'")

    world.app.batches.sweep()  # or a worker's, if that comes first

    _wait_until_ended(world, batch, tag, BatchState.COMPLETED, total=0)


def test_the_sweep_goes_on_with_cancelling(world: World, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with _begun(world, tag) as batch:
        _made_at(world, batch, "now() + interval '1 hour'")
        later = [world.task("imported").apply_async((each,), countdown=3600) for each in range(3)]
    cancel_job, numbers = world.app.cancel_job, iter(range(10))

    def dies(*args: Any, **options: Any) -> bool:
        if next(numbers) == 1:
            raise ProcessDiedError
        return cancel_job(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(world.app, "cancel_job", dies)
        with pytest.raises(ProcessDiedError):
            batch.cancel()
    assert sorted(world.row(each.id)["status"] for each in later) == ["cancelled", "scheduled", "scheduled"]
    _made_at(world, batch, "now() - interval '1 minute'")

    world.app.batches.sweep()

    assert {world.row(each.id)["status"] for each in later} == {"cancelled"}
    assert batch.progress().failed == 3
    assert _followed(world, tag) == []


def test_who_looks_waits_for_who_adds(world: World, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = _due(world, tag, monkeypatch)
    looked = threading.Event()
    found: list[bool] = []

    def look() -> None:
        found.append(world.app.batches.attend(uuid.UUID(batch.id)))
        looked.set()

    with world.app.database.transaction() as connection, world.app.enqueue_on(connection):
        with jobbridge.batch.open(batch.id, app=world.app):
            added = world.task("import_waits").delay()
        threading.Thread(target=look, daemon=True).start()
        waits = (
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%job_batches%%'"
        )
        wait_until(lambda: len(world.looking.rows(waits)) > 0, message="it waits for the one who adds")
        assert not looked.is_set()
    assert looked.wait(30)
    assert found == [False]
    assert _followed(world, tag) == []

    _release(world, added)

    _wait_until_ended(world, batch, tag, BatchState.COMPLETED, total=1)


def _made_at(world: World, batch: Batch, at: LiteralString) -> None:
    """Have it older, or younger: the sweep leaves the youngest to others."""
    with world.app.database.connection() as connection:
        connection.execute(f"UPDATE job_batches SET created_at = {at} WHERE batch_id = %s", (batch.id,))
