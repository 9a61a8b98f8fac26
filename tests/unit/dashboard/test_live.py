"""What the live events are made of: gaps of the log, moments, and viewers that do not keep up."""

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
from jobbridge.dashboard.live import subscriber as viewers
from jobbridge.dashboard.live.cursor import Moments
from jobbridge.dashboard.live.subscriber import Interest, Viewer
from jobbridge.dashboard.live.subscribers import Audience, TooManyViewers
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
    moments = Moments(kept=10)
    first = moments.note(5, now=100)
    same = moments.note(5, now=101)
    later = moments.note(9, now=102)

    assert [moments.find(words) for words in (first, same, later)] == [5, 5, 9]
    moments.note(20, now=111)
    assert moments.find(first) == 5, "what was true at the beginning of the time that is kept"
    moments.note(30, now=130)
    assert [moments.find(words) for words in (first, later)] == [None, None]


@pytest.mark.parametrize("words", ["", "x", "0-1", "\0", "5", "é-1", f"{'0' * 12}-1", "9" * 5000])
def test_words_that_are_no_moment_are_none(words: str) -> None:
    moments = Moments(kept=10)
    moments.note(5, now=0)

    assert moments.find(words) is None
    assert Moments(kept=10).find(moments.note(6, now=1)) is None


# -- viewers


def row(tenant: TenantId = ACME, status: JobStatus = JobStatus.QUEUED, error: str | None = None) -> LiveRow:
    return LiveRow(
        tenant=tenant, job_id=uuid4(), type="invoice.send", status=status, engine=Engine.CELERY, queue="mail",
        attempt=1, progress=None, progress_message=None, error=error, created_at=NOW, updated_at=NOW, run_at=None,
        started_at=None, completed_at=None,
    )  # fmt: skip


def viewer(interest: Interest | None = None, name: str = "ada") -> Viewer:
    return Viewer(interest or Interest(), Principal(name=name, role=Role.VIEWER))


def received(of: Viewer) -> str:
    return asyncio.run(of.take(timeout=0)).decode()


@pytest.fixture
def audience() -> Audience:
    audience = Audience(most=3, most_each=2)
    audience.moment = "now"
    return audience


def opened(audience: Audience, *them: Viewer) -> None:
    for each in them:
        audience.join(each)
    for each in audience.take_waiting():
        audience.open(each, None)
        received(each)


def test_each_is_told_what_it_may_see_and_asked_for(audience: Audience) -> None:
    mine = viewer(Interest(tenant=ACME))
    failures = viewer(Interest(shows_tenant=True, statuses=frozenset({JobStatus.FAILED})))
    opened(audience, mine, failures)

    audience.tell([row(), row(OTHER), row(OTHER, JobStatus.FAILED)])

    told = received(mine)
    assert told.count("job_id") == 1
    assert "tenant" not in told
    told = received(failures)
    assert told.count("job_id") == 1
    assert '"tenant":"other"' in told


def test_whoever_does_not_keep_up_is_told_to_read_anew(audience: Audience) -> None:
    slow, quick = viewer(), viewer()
    opened(audience, slow, quick)

    for _ in range(viewers.MOST_EVENTS + 1):
        audience.tell([row()])
        assert "event: jobs" in received(quick)

    assert received(slow).startswith("id: now\nevent: reset\n")
    audience.tell([row()])
    assert "event: jobs" in received(slow)


def test_what_waits_for_one_viewer_is_bounded_in_bytes() -> None:
    slow = viewer()
    for number in range(64):
        slow.put(b"%d" % (number % 10) * (viewers.MOST_BYTES // 8), moment="now")

    told = []
    while some := received(slow):
        told.append(some)
    assert sum(map(len, told)) <= viewers.MOST_BYTES
    assert told[0].startswith("id: now\nevent: reset\n"), "what it lost is before what it has"
    assert told[-1].endswith("3")


def test_one_more_than_there_may_be_is_refused(audience: Audience) -> None:
    mine = [viewer(), viewer()]
    opened(audience, *mine)
    with pytest.raises(TooManyViewers) as refused:
        audience.join(viewer())
    assert refused.value.is_own_fault
    opened(audience, viewer(name="bob"))
    with pytest.raises(TooManyViewers) as refused:
        audience.join(viewer(name="eve"))
    assert not refused.value.is_own_fault

    audience.leave(mine[0])

    audience.join(viewer())
    assert len(audience) == 3


def test_what_people_wrote_cannot_end_an_event(audience: Audience) -> None:
    one = viewer()
    opened(audience, one)

    audience.tell(
        [row(error="a\u2028b\r\rdata: x \ud7ff postgresql://me:hunter2@db/x\nevent: reset\n\ndata: {}")]
    )

    told = received(one)
    assert told.count("\n\n") == 1
    assert told.count("event:") == 1
    assert "\r" not in told
    assert "hunter2" not in told
