"""How often a process notifies, and when a consumer looks again."""

from __future__ import annotations

from jobbridge.broker.consume.recheck import LOOK_AGAIN, NOTIFY_EVERY, Rechecks, Throttle

QUEUE = ("database", "q")


def test_a_queue_is_notified_again_after_a_while() -> None:
    throttle = Throttle()
    assert throttle.is_needed(QUEUE, 100.0)

    throttle.note(QUEUE, 100.0)

    assert not throttle.is_needed(QUEUE, 100.0 + NOTIFY_EVERY / 2)
    assert throttle.is_needed(("database", "other"), 100.0)
    assert throttle.is_needed(QUEUE, 100.0 + 2 * NOTIFY_EVERY)


def test_names_that_are_used_once_do_not_pile_up() -> None:
    throttle = Throttle()
    for number in range(5000):
        throttle.note(("database", f"reply-{number}"), 100.0)

    assert len(throttle._notified_at) <= 1001


def test_what_is_published_silently_is_looked_for() -> None:
    # A publisher is silent for NOTIFY_EVERY after it notified: the looks must outlast that.
    assert max(LOOK_AGAIN) > 10 * NOTIFY_EVERY
    assert min(LOOK_AGAIN) > NOTIFY_EVERY


def test_each_look_is_due_once() -> None:
    rechecks = Rechecks()
    assert rechecks.next_at is None

    rechecks.expect("q", 100.0)

    assert rechecks.next_at == 100.0 + LOOK_AGAIN[0]
    assert list(rechecks.due(100.0)) == []
    for seconds in LOOK_AGAIN:
        assert list(rechecks.due(100.0 + seconds)) == ["q"]
        assert list(rechecks.due(100.0 + seconds)) == []
    assert rechecks.next_at is None


def test_a_new_find_begins_again() -> None:
    rechecks = Rechecks()
    rechecks.expect("q", 100.0)
    list(rechecks.due(100.1))

    rechecks.expect("q", 100.2)

    assert rechecks.next_at == 100.2 + LOOK_AGAIN[0]
