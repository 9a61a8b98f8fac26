"""What the live events are made of: gaps of the log, cursors, and subscribers that do not keep up."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobbridge.core.access import Principal, Role
from jobbridge.core.keys import Engine, TenantId
from jobbridge.core.status import JobStatus
from jobbridge.dashboard.live.cursor import Cursors
from jobbridge.dashboard.live.subscriber import MOST_BYTES, MOST_EVENTS, Interest, Subscriber
from jobbridge.dashboard.live.subscribers import Subscribers, TooManySubscribers
from jobbridge.store.monitor.change_log import MOST_GAPS, Gaps, LiveRow, LostTrack

ACME, OTHER = TenantId("acme"), TenantId("other")
NOW = datetime(2026, 11, 24, tzinfo=UTC)


class Log:
    """What Postgres does: transactions take ids in order, end in any, and are seen when they were committed."""

    def __init__(self) -> None:
        self.next_xid, self.next_event, self.last_completed = 100, 1, 99
        self.running: dict[int, list[int]] = {}
        self.visible: set[int] = set()

    def begin(self) -> None:
        self.running[self.next_xid] = []
        self.next_xid += 1

    def write(self, which: int) -> None:
        list(self.running.values())[which % len(self.running)].append(self.next_event)
        self.next_event += 1

    def end(self, which: int, *, commits: bool) -> None:
        xid = list(self.running)[which % len(self.running)]
        events = self.running.pop(xid)
        self.last_completed = max(self.last_completed, xid)
        self.visible |= set(events) if commits else set()

    def look(self, gaps: Gaps, limit: int) -> list[int]:
        newer = sorted(event for event in self.visible if event > gaps.newest)[:limit]
        seen = newer + [event for event in gaps.ids if event in self.visible]
        # A snapshot knows only of transactions up to the newest that has ended; what is younger is "not over" to it.
        over_below = min(
            (xid for xid in self.running if xid <= self.last_completed), default=self.last_completed + 1
        )
        bound = None
        if gaps.needs_bound:
            bound, self.next_xid = self.next_xid, self.next_xid + 1
            self.last_completed = max(self.last_completed, bound)
        gaps.note(seen, over_below=over_below, bound=bound)
        return seen


STEPS = st.lists(
    st.one_of(
        st.just(("begin", 0, True)),
        st.tuples(st.just("write"), st.integers(0, 9), st.just(True)),
        st.tuples(st.just("end"), st.integers(0, 9), st.booleans()),
        st.tuples(st.just("look"), st.integers(1, 5), st.just(True)),
    ),
    max_size=60,
)


#: The younger transaction has the lower id, and is younger than any that has ended: no snapshot's `xmax` covers it.
YOUNGER_HAS_THE_GAP = [
    ("begin", 0, True), ("begin", 0, True), ("write", 1, True), ("write", 0, True), ("end", 0, True),
    ("look", 5, True), ("look", 5, True), ("look", 5, True),
]  # fmt: skip


@given(STEPS)
@example(YOUNGER_HAS_THE_GAP)
def test_whatever_is_committed_is_seen_once_and_what_is_rolled_back_is_forgotten(
    steps: list[tuple[str, int, bool]],
) -> None:
    log, gaps = Log(), Gaps(0)
    seen: list[int] = []
    for step, number, commits in steps:
        if step == "begin":
            log.begin()
        elif step == "look":
            seen += log.look(gaps, number)
            held = [event for events in log.running.values() for event in events]
            assert all(event > gaps.complete_to for event in held)
            assert {event for event in log.visible if event <= gaps.complete_to} <= set(seen)
        elif log.running and step == "write":
            log.write(number)
        elif log.running:
            log.end(number, commits=commits)
    while log.running:
        log.end(0, commits=True)
    for _ in range(100):
        seen += log.look(gaps, 5)

    assert sorted(seen) == sorted(log.visible)
    assert len(gaps) == 0


def test_a_great_import_that_was_rolled_back_is_not_remembered_id_by_id() -> None:
    gaps = Gaps(0)

    with pytest.raises(LostTrack, match="missing"):
        gaps.note([MOST_GAPS + 10], over_below=1, bound=None)


def test_a_moment_says_what_was_told_then() -> None:
    cursors = Cursors(kept=10)
    first = cursors.note(5, now=100)
    same = cursors.note(5, now=101)
    later = cursors.note(9, now=102)

    assert [cursors.find(words) for words in (first, same, later)] == [5, 5, 9]
    cursors.note(20, now=111)
    assert cursors.find(first) == 5, "what was true at the beginning of the time that is kept"
    cursors.note(30, now=130)
    assert [cursors.find(words) for words in (first, later)] == [None, None]


@pytest.mark.parametrize("words", ["", "x", "0-1", "\0", "5", "é-1", f"{'0' * 12}-1", "9" * 5000])
def test_words_that_are_no_moment_are_none(words: str) -> None:
    cursors = Cursors(kept=10)
    cursors.note(5, now=0)

    assert cursors.find(words) is None
    assert Cursors(kept=10).find(cursors.note(6, now=1)) is None


# -- subscribers


def row(tenant: TenantId = ACME, status: JobStatus = JobStatus.QUEUED, error: str | None = None) -> LiveRow:
    return LiveRow(
        tenant=tenant, job_id=uuid4(), type="invoice.send", status=status, engine=Engine.CELERY, queue="mail",
        attempt=1, progress=None, progress_message=None, error=error, created_at=NOW, updated_at=NOW, run_at=None,
        started_at=None, completed_at=None,
    )  # fmt: skip


def subscriber(interest: Interest | None = None, name: str = "ada") -> Subscriber:
    return Subscriber(interest or Interest(), Principal(name=name, role=Role.VIEWER))


def received(of: Subscriber) -> str:
    return asyncio.run(of.take(timeout=0)).decode()


@pytest.fixture
def subscribers() -> Subscribers:
    subscribers = Subscribers(most=3, most_each=2)
    subscribers.cursor = "now"
    return subscribers


def opened(subscribers: Subscribers, *them: Subscriber) -> None:
    for each in them:
        subscribers.join(each)
    for each in subscribers.take_waiting():
        subscribers.open(each, None)
        received(each)


def test_each_is_told_what_it_may_see_and_asked_for(subscribers: Subscribers) -> None:
    mine = subscriber(Interest(tenant=ACME))
    failures = subscriber(Interest(shows_tenant=True, statuses=frozenset({JobStatus.FAILED})))
    opened(subscribers, mine, failures)

    subscribers.tell([row(), row(OTHER), row(OTHER, JobStatus.FAILED)])

    told = received(mine)
    assert told.count("job_id") == 1
    assert "tenant" not in told
    told = received(failures)
    assert told.count("job_id") == 1
    assert '"tenant":"other"' in told


def test_whoever_does_not_keep_up_is_told_to_read_anew(subscribers: Subscribers) -> None:
    slow, quick = subscriber(), subscriber()
    opened(subscribers, slow, quick)

    for _ in range(MOST_EVENTS + 1):
        subscribers.tell([row()])
        assert "event: jobs" in received(quick)

    assert received(slow).startswith("id: now\nevent: reset\n")
    subscribers.tell([row()])
    assert "event: jobs" in received(slow)


def test_what_waits_for_one_subscriber_is_bounded_in_bytes() -> None:
    slow = subscriber()
    for number in range(64):
        slow.put(b"%d" % (number % 10) * (MOST_BYTES // 8), cursor="now")

    told = []
    while some := received(slow):
        told.append(some)
    assert sum(map(len, told)) <= MOST_BYTES
    assert told[0].startswith("id: now\nevent: reset\n"), "what it lost is before what it has"
    assert told[-1].endswith("3")


def test_one_more_than_there_may_be_is_refused(subscribers: Subscribers) -> None:
    mine = [subscriber(), subscriber()]
    opened(subscribers, *mine)
    with pytest.raises(TooManySubscribers) as refused:
        subscribers.join(subscriber())
    assert refused.value.is_own_fault
    opened(subscribers, subscriber(name="bob"))
    with pytest.raises(TooManySubscribers) as refused:
        subscribers.join(subscriber(name="eve"))
    assert not refused.value.is_own_fault

    subscribers.leave(mine[0])

    subscribers.join(subscriber())
    assert len(subscribers) == 3


def test_what_people_wrote_cannot_end_an_event(subscribers: Subscribers) -> None:
    one = subscriber()
    opened(subscribers, one)

    subscribers.tell(
        [row(error="a\u2028b\r\rdata: x \ud7ff postgresql://me:hunter2@db/x\nevent: reset\n\ndata: {}")]
    )

    told = received(one)
    assert told.count("\n\n") == 1
    assert told.count("event:") == 1
    assert "\r" not in told
    assert "hunter2" not in told
