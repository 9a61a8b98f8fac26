"""All who watch in this process, and how they are told. Knows nothing of the database."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from jobbridge.core.keys import TenantId
from jobbridge.dashboard.live import encode as telling
from jobbridge.dashboard.live.subscriber import Interest, Viewer
from jobbridge.store.monitor.change_log import LiveRow, Totals


class TooManyViewers(Exception):
    """One more is not served.

    Attributes:
        is_own_fault: It is too many for whoever asks, not for all.
    """

    def __init__(self, *, is_own_fault: bool) -> None:
        super().__init__("too many streams are open")
        self.is_own_fault = is_own_fault


class Audience:
    """Viewers by interest.

    Args:
        most: So many streams at once.
        most_each: So many of one token.
    """

    def __init__(self, *, most: int, most_each: int) -> None:
        self._most, self._most_each = most, most_each
        self._by_principal: Counter[object] = Counter()
        self._waiting: list[Viewer] = []
        self._open: dict[Interest, set[Viewer]] = defaultdict(set)
        self._told_totals: dict[TenantId | None, Totals] = {}
        #: What those have seen who have been sent everything.
        self.moment = ""

    def __len__(self) -> int:
        return self._by_principal.total()

    def join(self, viewer: Viewer) -> None:
        """Take one more in; it is told of changes after `open`.

        Raises:
            TooManyViewers: There are enough.
        """
        who = _who(viewer)
        if len(self) >= self._most or self._by_principal[who] >= self._most_each:
            raise TooManyViewers(is_own_fault=len(self) < self._most)
        self._by_principal[who] += 1
        self._waiting.append(viewer)

    def leave(self, viewer: Viewer) -> None:
        """Forget one."""
        who = _who(viewer)
        self._by_principal[who] -= 1
        if not self._by_principal[who]:
            del self._by_principal[who]
        if viewer in self._waiting:
            self._waiting.remove(viewer)
        elif viewer.interest in self._open:
            of_interest = self._open[viewer.interest]
            of_interest.discard(viewer)
            if not of_interest:
                del self._open[viewer.interest]

    def take_waiting(self) -> Sequence[Viewer]:
        """Give those who wait to be told of changes; `open` each."""
        waiting, self._waiting = self._waiting, []
        return [viewer for viewer in waiting if not viewer.is_closed]

    def open(self, viewer: Viewer, missed: Iterable[LiveRow] | None) -> None:
        """Begin to tell one of changes.

        Args:
            viewer: Who waited.
            missed: What it did not see; None: nobody knows, so it has to read anew.
        """
        if viewer.is_closed:
            return
        self._open[viewer.interest].add(viewer)
        viewer.is_open = True
        begin = telling.opened(resumed=missed is not None, now=datetime.now(UTC), moment=self.moment)
        viewer.put(begin, moment=self.moment)
        parts = [_told(row, viewer.interest) for row in missed or () if viewer.interest.takes(row)]
        if parts:
            viewer.put(telling.jobs_events(parts, moment=self.moment), moment=self.moment)
        known = self._told_totals.get(viewer.interest.tenant)
        if known is not None and viewer.interest.job_id is None:
            viewer.put(self._counts(known), moment=self.moment)

    def tell(self, rows: Sequence[LiveRow]) -> None:
        """Tell each of what is of interest to it."""
        by_tenant: dict[TenantId, list[LiveRow]] = defaultdict(list)
        for row in rows:
            by_tenant[row.tenant].append(row)
        plain: dict[int, bytes] = {}
        named: dict[int, bytes] = {}
        for interest, viewers in self._open.items():
            written = named if interest.shows_tenant else plain
            parts = []
            for row in rows if interest.tenant is None else by_tenant.get(interest.tenant, ()):
                if interest.takes(row):
                    if id(row) not in written:
                        written[id(row)] = _told(row, interest)
                    parts.append(written[id(row)])
            if parts:
                self._put(viewers, telling.jobs_events(parts, moment=self.moment))

    def reset(self) -> None:
        """Tell all that they have to read anew."""
        self._told_totals.clear()
        for viewers in self._open.values():
            self._put(viewers, telling.event("reset", moment=self.moment))

    @property
    def counted(self) -> frozenset[TenantId | None]:
        """Of which tenants somebody is told the totals; None: of all jobs."""
        return frozenset(interest.tenant for interest in self._open if interest.job_id is None)

    def tell_totals(self, totals: Mapping[TenantId | None, Totals]) -> None:
        """Tell how many jobs there are, if that has changed."""
        news = {tenant: own for tenant, own in totals.items() if self._told_totals.get(tenant) != own}
        self._told_totals = {
            tenant: own for tenant, own in self._told_totals.items() if tenant in self.counted
        } | news
        written = {tenant: self._counts(own) for tenant, own in news.items()}
        for interest, viewers in self._open.items():
            if interest.job_id is None and interest.tenant in written:
                self._put(viewers, written[interest.tenant])

    @property
    def token_ids(self) -> set[UUID]:
        """The tokens that they came with."""
        tokens = (viewer.principal.token_id for viewer in self._all())
        return {token_id for token_id in tokens if token_id is not None}

    def close_others(self, good: Collection[UUID]) -> None:
        """End the streams of tokens that are not good any more."""
        for viewer in self._all():
            if viewer.principal.token_id is not None and viewer.principal.token_id not in good:
                viewer.close()

    @property
    def sessions(self) -> set[bytes]:
        """The sessions that they belong to."""
        return {viewer.session for viewer in self._all() if viewer.session is not None}

    def close_signed_out(self, ended: Collection[bytes]) -> None:
        """End the streams of sessions that somebody has ended."""
        for viewer in self._all():
            if viewer.session in ended:
                viewer.close()

    def close(self) -> None:
        """End all streams."""
        for viewer in self._all():
            viewer.close()

    def _counts(self, totals: Totals) -> bytes:
        return telling.event("counts", telling.totals_json(totals), moment=self.moment)

    def _all(self) -> list[Viewer]:
        return [*self._waiting, *(viewer for viewers in self._open.values() for viewer in viewers)]

    def _put(self, viewers: Iterable[Viewer], told: bytes) -> None:
        for viewer in viewers:
            viewer.put(told, moment=self.moment)


def _told(row: LiveRow, interest: Interest) -> bytes:
    told = telling.job_json(row)
    return telling.with_tenant(row, told) if interest.shows_tenant else told


def _who(viewer: Viewer) -> object:
    return viewer.principal.token_id or viewer.principal.name
