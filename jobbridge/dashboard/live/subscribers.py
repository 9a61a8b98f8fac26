"""All who watch in this process, and how they are told. Knows nothing of the database."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from jobbridge.core.keys import TenantId
from jobbridge.dashboard.live import encode
from jobbridge.dashboard.live.subscriber import Interest, Subscriber
from jobbridge.store.monitor.change_log import LiveRow, Totals


class TooManySubscribers(Exception):
    """One more is not served.

    Attributes:
        is_own_fault: It is too many for whoever asks, not for all.
    """

    def __init__(self, *, is_own_fault: bool) -> None:
        super().__init__("too many streams are open")
        self.is_own_fault = is_own_fault


class Subscribers:
    """Subscribers by interest.

    Args:
        most: So many streams at once.
        most_each: So many of one token.
    """

    def __init__(self, *, most: int, most_each: int) -> None:
        self._most, self._most_each = most, most_each
        self._by_principal: Counter[object] = Counter()
        self._waiting: list[Subscriber] = []
        self._open: dict[Interest, set[Subscriber]] = defaultdict(set)
        self._told_totals: dict[TenantId | None, Totals] = {}
        #: What those have seen who have been sent everything.
        self.cursor = ""

    def __len__(self) -> int:
        return self._by_principal.total()

    def join(self, subscriber: Subscriber) -> None:
        """Take one more in; it is told of changes after `open`.

        Raises:
            TooManySubscribers: There are enough.
        """
        who = _who(subscriber)
        if len(self) >= self._most or self._by_principal[who] >= self._most_each:
            raise TooManySubscribers(is_own_fault=len(self) < self._most)
        self._by_principal[who] += 1
        self._waiting.append(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        """Forget one."""
        who = _who(subscriber)
        self._by_principal[who] -= 1
        if not self._by_principal[who]:
            del self._by_principal[who]
        if subscriber in self._waiting:
            self._waiting.remove(subscriber)
        elif subscriber.interest in self._open:
            of_interest = self._open[subscriber.interest]
            of_interest.discard(subscriber)
            if not of_interest:
                del self._open[subscriber.interest]

    def take_waiting(self) -> Sequence[Subscriber]:
        """Give those who wait to be told of changes; `open` each."""
        waiting, self._waiting = self._waiting, []
        return [subscriber for subscriber in waiting if not subscriber.is_closed]

    def open(self, subscriber: Subscriber, missed: Iterable[LiveRow] | None) -> None:
        """Begin to tell one of changes.

        Args:
            subscriber: Who waited.
            missed: What it did not see; None: nobody knows, so it has to read anew.
        """
        if subscriber.is_closed:
            return
        self._open[subscriber.interest].add(subscriber)
        subscriber.is_open = True
        begin = encode.opened(resumed=missed is not None, now=datetime.now(UTC), cursor=self.cursor)
        subscriber.put(begin, cursor=self.cursor)
        parts = [_told(row, subscriber.interest) for row in missed or () if subscriber.interest.takes(row)]
        if parts:
            subscriber.put(encode.jobs_events(parts, cursor=self.cursor), cursor=self.cursor)
        known = self._told_totals.get(subscriber.interest.tenant)
        if known is not None and subscriber.interest.job_id is None:
            subscriber.put(self._counts(known), cursor=self.cursor)

    def tell(self, rows: Sequence[LiveRow]) -> None:
        """Tell each of what is of interest to it."""
        by_tenant: dict[TenantId, list[LiveRow]] = defaultdict(list)
        for row in rows:
            by_tenant[row.tenant].append(row)
        plain: dict[int, bytes] = {}
        named: dict[int, bytes] = {}
        for interest, subscribers in self._open.items():
            written = named if interest.shows_tenant else plain
            parts = []
            for row in rows if interest.tenant is None else by_tenant.get(interest.tenant, ()):
                if interest.takes(row):
                    if id(row) not in written:
                        written[id(row)] = _told(row, interest)
                    parts.append(written[id(row)])
            if parts:
                self._put(subscribers, encode.jobs_events(parts, cursor=self.cursor))

    def reset(self) -> None:
        """Tell all that they have to read anew."""
        self._told_totals.clear()
        for subscribers in self._open.values():
            self._put(subscribers, encode.event("reset", cursor=self.cursor))

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
        for interest, subscribers in self._open.items():
            if interest.job_id is None and interest.tenant in written:
                self._put(subscribers, written[interest.tenant])

    @property
    def token_ids(self) -> set[UUID]:
        """The tokens that they came with."""
        tokens = (subscriber.principal.token_id for subscriber in self._all())
        return {token_id for token_id in tokens if token_id is not None}

    def close_others(self, good: Collection[UUID]) -> None:
        """End the streams of tokens that are not good any more."""
        for subscriber in self._all():
            if subscriber.principal.token_id is not None and subscriber.principal.token_id not in good:
                subscriber.close()

    @property
    def sessions(self) -> set[bytes]:
        """The sessions that they belong to."""
        return {subscriber.session for subscriber in self._all() if subscriber.session is not None}

    def close_signed_out(self, ended: Collection[bytes]) -> None:
        """End the streams of sessions that somebody has ended."""
        for subscriber in self._all():
            if subscriber.session in ended:
                subscriber.close()

    def close(self) -> None:
        """End all streams."""
        for subscriber in self._all():
            subscriber.close()

    def _counts(self, totals: Totals) -> bytes:
        return encode.event("counts", encode.totals_json(totals), cursor=self.cursor)

    def _all(self) -> list[Subscriber]:
        return [
            *self._waiting,
            *(subscriber for subscribers in self._open.values() for subscriber in subscribers),
        ]

    def _put(self, subscribers: Iterable[Subscriber], told: bytes) -> None:
        for subscriber in subscribers:
            subscriber.put(told, cursor=self.cursor)


def _told(row: LiveRow, interest: Interest) -> bytes:
    told = encode.job_json(row)
    return encode.with_tenant(row, told) if interest.shows_tenant else told


def _who(subscriber: Subscriber) -> object:
    return subscriber.principal.token_id or subscriber.principal.name
