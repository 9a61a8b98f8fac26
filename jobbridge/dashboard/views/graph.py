"""A whole as one drawing: chains from left to right, what goes on side by side below each other. Pure.

Many alike (of one type, sent by the same, in one group) are one node with their numbers. The server draws it as SVG;
its colours are those of the statuses, from the style sheet.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

from jobbridge.core.status import FINAL, JobStatus
from jobbridge.dashboard.views.formats import length
from jobbridge.store.fanout.graph import GraphJob, Whole

#: So many nodes are drawn.
MOST = 200
#: More than so many alike are one node.
ALIKE = 8
#: In the units of the drawing, which are pixels where there is room.
WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 200, 48, 48, 14, 8
_LABEL = 26

#: What a node of many is coloured by: the first of these that one of them is in.
_WORST = (
    JobStatus.FAILED, JobStatus.PROCESSING, JobStatus.RETRYING, JobStatus.QUEUED, JobStatus.SCHEDULED,
    JobStatus.PENDING, JobStatus.CANCELLED, JobStatus.EXPIRED, JobStatus.SKIPPED, JobStatus.COMPLETED,
)  # fmt: skip
_Key = tuple[object, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A box.

    Attributes:
        job_id: The job that it leads to; None: there is none yet.
        label: Its type, cut to the box.
        title: All of it, for who points at it.
        detail: The second line: status and time, or the numbers of many.
        status: Names its colour; `waiting` for what is not sent yet.
        is_here: The page is about it.
        x, y: Of its upper left corner.
    """

    job_id: UUID | None
    label: str
    title: str
    detail: str
    status: str
    is_here: bool = False
    x: int = 0
    y: int = 0

    @property
    def width(self) -> int:
        return WIDTH

    @property
    def height(self) -> int:
        return HEIGHT


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """The drawing.

    Attributes:
        edges: What SVG draws as paths.
        jobs: How many there are in all nodes.
        open, failed: How many of these have not ended, and how many did not complete and may run again.
        is_cut: There are more than are drawn.
    """

    nodes: Sequence[Node]
    edges: Sequence[str]
    width: int
    height: int
    jobs: int
    open: int
    failed: int
    is_cut: bool


@dataclass(slots=True)
class _Box:
    """A node while it is put together."""

    key: _Key
    jobs: list[GraphJob] = field(default_factory=list)
    before: set[_Key] = field(default_factory=set)
    made: Node | None = None
    layer: int = 0


def graph_of(whole: Whole, here: UUID, *, now: datetime) -> Graph | None:
    """Draw a whole; None: it is one job alone.

    Args:
        whole: What there is.
        here: The job that the page is about.
        now: For the time that what runs has taken.
    """
    boxes = _boxes(whole)
    if len(boxes) < 2:
        return None
    shown = _first(boxes, here)
    _layer(shown)
    placed = _placed(shown, here, now)
    edges = [
        _edge(placed[before], placed[box.key]) for box in shown for before in sorted(box.before, key=str)
        if before in placed
    ]  # fmt: skip
    statuses = Counter(job.status for job in whole.jobs)
    return Graph(
        nodes=list(placed.values()),
        edges=edges,
        width=max(node.x for node in placed.values()) + WIDTH + MARGIN,
        height=max(node.y for node in placed.values()) + HEIGHT + MARGIN,
        jobs=len(whole.jobs),
        open=sum(number for status, number in statuses.items() if status not in FINAL),
        failed=sum(statuses[status] for status in (JobStatus.FAILED, JobStatus.EXPIRED, JobStatus.SKIPPED)),
        is_cut=whole.is_cut or len(shown) < len(boxes),
    )


def _boxes(whole: Whole) -> list[_Box]:
    """Put those that are alike into one box, and find what is before each."""
    known = {job.job_id: job for job in whole.jobs}
    boxes: dict[_Key, _Box] = {}
    box_of: dict[UUID, _Key] = {}
    for alike in _alike(whole.jobs, known, box_of):
        key: _Key = ("job", alike[0].job_id) if len(alike) == 1 else ("many", alike[0].job_id)
        boxes[key] = _Box(key=key, jobs=alike)
        box_of |= {job.job_id: key for job in alike}
    parts: dict[str, list[GraphJob]] = defaultdict(list)
    for job in whole.jobs:
        if job.chord_id is not None and job.chord_index is not None:
            parts[job.chord_id].append(job)
    for box in list(boxes.values()):
        for job in box.jobs:
            box.before |= _before(job, known, box_of, parts) - {box.key}
    _add_waiting(whole, boxes, box_of, parts)
    return list(boxes.values())


def _alike(
    jobs: Sequence[GraphJob], known: Mapping[UUID, GraphJob], box_of: Mapping[UUID, _Key]
) -> list[list[GraphJob]]:
    """Give the jobs in lists: of one type, sent by one, in one group; those of few alone."""
    found: dict[_Key, list[GraphJob]] = defaultdict(list)
    for job in jobs:
        # What follows from each of many is many, too.
        sender = known.get(job.parent_id) if job.parent_id else None
        origin = None if sender is None else (sender.type, sender.group_id, sender.chord_id, sender.parent_id)
        together = job.group_id or job.chord_id
        place: _Key = (together,) if together else (origin,)
        found[(job.type, *place)].append(job)
    return [
        each
        for alike in found.values()
        for each in ([alike] if len(alike) > ALIKE else [[job] for job in alike])
    ]


def _before(
    job: GraphJob,
    known: Mapping[UUID, GraphJob],
    box_of: Mapping[UUID, _Key],
    parts: Mapping[str, Sequence[GraphJob]],
) -> set[_Key]:
    sender = known.get(job.parent_id) if job.parent_id else None
    if sender is None or sender.job_id == job.job_id:
        return set()
    header = parts.get(sender.chord_id or "", ()) if sender.chord_index is not None else ()
    is_body = job.chord_id != sender.chord_id and header and all(
        part.completed_at is not None and part.completed_at <= job.created_at for part in header
    )  # fmt: skip
    return {box_of[part.job_id] for part in header} if is_body else {box_of[sender.job_id]}


def _add_waiting(
    whole: Whole,
    boxes: dict[_Key, _Box],
    box_of: Mapping[UUID, _Key],
    parts: Mapping[str, Sequence[GraphJob]],
) -> None:
    """Add what is not told by a job of its own: bodies that wait, and children of a fan-out."""
    for chord_id, (counted, size) in whole.chords.items():
        if header := parts.get(chord_id):
            of = f"{counted} of {size}" if size is not None else str(counted)
            node = Node(
                job_id=None,
                label="body of the chord",
                title="The body of the chord: it is sent when all parts have ended",
                detail=f"waits: {of} ended",
                status="waiting",
            )
            key: _Key = ("body", chord_id)
            boxes[key] = _Box(key=key, before={box_of[part.job_id] for part in header}, made=node)
    for parent_id, statuses in whole.children.items():
        total = sum(statuses.values())
        node = Node(
            job_id=parent_id,
            label=f"{total:,} children",
            title=f"{total:,} children: {_numbers(statuses)}",
            detail=_numbers(statuses),
            status=_worst(statuses),
        )
        boxes[("children", parent_id)] = _Box(
            key=("children", parent_id), before={box_of[parent_id]}, made=node
        )


def _first(boxes: Sequence[_Box], here: UUID) -> list[_Box]:
    """Give as many as are drawn; the one that the page is about among them."""
    if len(boxes) <= MOST:
        return list(boxes)
    own = [box for box in boxes if any(job.job_id == here for job in box.jobs)]
    rest = [box for box in boxes if box not in own]
    kept = {id(box) for box in [*rest[: MOST - len(own)], *own]}
    return [box for box in boxes if id(box) in kept]


def _layer(boxes: Sequence[_Box]) -> None:
    """Put each behind all that are before it."""
    by_key = {box.key: box for box in boxes}
    for _ in range(len(boxes)):  # there are no circles; were there one, this ends
        moved = False
        for box in boxes:
            layer = max((by_key[key].layer + 1 for key in box.before if key in by_key), default=0)
            if layer > box.layer and layer < len(boxes):
                box.layer, moved = layer, True
        if not moved:
            return


def _placed(boxes: Sequence[_Box], here: UUID, now: datetime) -> dict[_Key, Node]:
    rows: Counter[int] = Counter()
    placed: dict[_Key, Node] = {}
    for box in sorted(boxes, key=lambda each: each.layer):  # stable: the oldest is uppermost
        y = MARGIN + rows[box.layer] * (HEIGHT + GAP_Y)
        # A lone one stands beside what is before it.
        if rows[box.layer] == 0 and (before := [placed[key] for key in box.before if key in placed]):
            y = min(node.y for node in before)
            rows[box.layer] = (y - MARGIN) // (HEIGHT + GAP_Y)
        rows[box.layer] += 1
        x = MARGIN + box.layer * (WIDTH + GAP_X)
        placed[box.key] = replace(box.made or _node(box.jobs, here, now), x=x, y=y)
    return placed


def _node(jobs: Sequence[GraphJob], here: UUID, now: datetime) -> Node:
    first, is_here = jobs[0], any(job.job_id == here for job in jobs)
    if len(jobs) == 1:
        return Node(
            job_id=first.job_id,
            label=_cut(first.type),
            title=f"{first.type} {first.job_id}: {_state(first, now)}",
            detail=_state(first, now),
            status=first.status.value,
            is_here=is_here,
        )
    statuses = Counter(job.status.value for job in jobs)
    worst = _worst(statuses)
    of_interest = next((job for job in jobs if job.status == worst), first)
    return Node(
        job_id=of_interest.job_id,
        label=_cut(f"{len(jobs):,} \u00d7 {first.type}"),
        title=f"{len(jobs):,} \u00d7 {first.type}: {_numbers(statuses)}",
        detail=_numbers(statuses),
        status=worst,
        is_here=is_here,
    )


def _state(job: GraphJob, now: datetime) -> str:
    if job.started_at is None:
        return job.status.value
    took = (job.completed_at or now) - job.started_at
    return f"{job.status.value}, {length(max(took, timedelta(0)))}"


def _numbers(statuses: Mapping[str, int]) -> str:
    return ", ".join(
        f"{number:,} {status}" for status, number in sorted(statuses.items(), key=lambda each: -each[1])
    )


def _worst(statuses: Mapping[str, int]) -> str:
    return next((status.value for status in _WORST if statuses.get(status.value)), "waiting")


def _cut(text: str) -> str:
    return text if len(text) <= _LABEL else f"{text[: _LABEL - 1]}…"


def _edge(before: Node, after: Node) -> str:
    """Draw from the right side of one to the left side of the other."""
    x1, y1 = before.x + WIDTH, before.y + HEIGHT // 2
    x2, y2 = after.x, after.y + HEIGHT // 2
    middle = (x1 + x2) // 2
    return f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}"
