"""When to take messages, and how they reach the callbacks: by an event loop, or by waiting.

Who looks, and where: a queue is looked at when it was notified, when the last look there found more than was
wanted, and at every `poll_interval`. An empty look ends the matter; there is no busy polling.

In an event loop (`celery worker`) each turn writes the settlements first, then claims, then delivers; the socket of
the session is among the loop's readers. Without one (`drain_events`), one message is delivered per call.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from kombu.log import get_logger

from jobbridge.broker import topology
from jobbridge.broker.consume.claiming import PROMOTE_DUE, SECONDS_TO_NEXT_DUE
from jobbridge.broker.consume.isolation import Isolation
from jobbridge.broker.consume.recheck import Rechecks
from jobbridge.broker.consume.sweeping import Sweeper, bury
from jobbridge.broker.errors import NotNow
from jobbridge.broker.waker import Waker

if TYPE_CHECKING:
    from jobbridge.broker.channel import Channel
    from jobbridge.broker.consume.settling import Lease, Settler
    from jobbridge.broker.transport import Transport

logger = get_logger(__name__)

#: A claim for less than half of the window waits so long for more room: tasks that end together are claimed together.
PAUSE: Final = 0.01
#: Seconds between two tries while Postgres cannot (`NotNow`), at first and at most.
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 5.0
#: Messages of one claim where no window limits them.
UNWINDOWED: Final = 50
#: Messages that are due are made ready so many at a time, over all queues.
PORTION: Final = 500


class Prefetch:
    """Claims for the channels of one transport.

    Args:
        transport: Whose channels and session they are.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        #: Queues that may have something ready, in the order of their next look.
        self._promising: dict[str, None] = {}
        self._rechecks = Rechecks()
        self._undelivered: deque[tuple[Channel, str, dict[str, Any]]] = deque()
        self._loop: Any = None
        self._waker: Waker | None = None
        self._timers: list[Any] = []
        self._due_timer: Any = None
        self._recheck_timer: Any = None
        self._next_due_at: float | None = None
        self._next_poll_at = 0.0
        self._next_sweep_at = 0.0
        self._claimed_at = 0.0
        self._must_look_again = False  #: What was found had expired: no delivery makes the loop look again.
        self._is_paused = False
        #: While Postgres cannot do what it is asked to: when to ask again, and how long to wait the time after.
        self._not_before = 0.0
        self._next_pause = FIRST_PAUSE
        self._again_timer: Any = None
        self._sweeper = Sweeper()
        self._isolation = Isolation(transport.options.suspect_from)

    # -- which queues

    @property
    def _channels(self) -> list[Channel]:
        return [channel for channel in self._transport.open_channels if channel.consumed]

    @property
    def queues(self) -> list[str]:
        return [queue for channel in self._channels for queue in channel.consumed]

    def look_at(self, queue: str) -> None:
        """Expect something in the queue."""
        self._promising.setdefault(queue)

    def _note_and_promote(self) -> None:
        session, now = self._transport.session, monotonic()
        while session.notified:
            self.look_at(queue := session.notified.pop())
            self._rechecks.expect(queue, now)
        if session.is_due_notified:
            session.is_due_notified = False
            self._next_due_at = now
        self._promote()
        if session.is_suspect_notified:
            self._isolation.hear(session, self.queues, self.look_at)

    def _look_everywhere(self) -> None:
        for queue in self.queues:
            self.look_at(queue)
        self._next_due_at = monotonic()

    def _promote(self) -> None:
        """Make a portion of what is due ready, and be back in time for the rest: there is a claim between portions."""
        if self._next_due_at is None or monotonic() < self._next_due_at or not self._channels:
            return
        queues, session = self.queues, self._transport.session
        seconds = session.one(SECONDS_TO_NEXT_DUE, {"queues": queues})["seconds"]
        if seconds is not None and seconds <= 0:
            portion = {"queues": queues, "limit": max(PORTION // len(queues), 1)}
            promoted = session.rows(PROMOTE_DUE, portion)
            for row in promoted:
                self.look_at(row["queue"])
            seconds = 0.0 if promoted else 0.05  # another consumer is promoting it right now
        self._next_due_at = None if seconds is None else monotonic() + seconds
        self._set_due_timer(seconds)

    # -- claiming

    def _claim(self) -> None:
        self._must_look_again = False
        for _ in range(len(self._promising)):
            queue = next(iter(self._promising))
            del self._promising[queue]
            for channel in self._channels:
                if queue in channel.consumed and self._claim_from(channel, queue):
                    self.look_at(queue)  # behind the other queues

    def _claim_from(self, channel: Channel, queue: str) -> bool:
        """Claim what there is room for. True if there may be more."""
        is_acked = channel.consumed[queue]
        limit = self._room(channel) if is_acked else UNWINDOWED if self.is_in_loop else 1
        if limit <= 0:
            return True
        suspects = self._isolation.suspects(queue, self._transport) if is_acked else []
        if suspects is None:
            return True
        limit = max(limit // (len(self._promising) + 1), 1)
        payloads, looked_at = channel.take(queue, limit, is_acked=is_acked, suspects=suspects)
        self._next_pause = FIRST_PAUSE  # a claim writes, as settling does: Postgres can again
        self._claimed_at = monotonic() if is_acked else self._claimed_at
        if payloads:
            self._rechecks.expect(queue, monotonic())
        self._undelivered.extend((channel, queue, payload) for payload in payloads)
        self._must_look_again |= looked_at == limit > len(payloads)
        return looked_at == limit or bool(suspects)

    def _room(self, channel: Channel) -> int:
        window = channel.window
        room = window.room()
        if room is None:
            return UNWINDOWED if self.is_in_loop else 1
        if self.is_in_loop and 0 < room * 2 < room + len(window.leases) and self._must_pause():
            return 0
        return room

    def _must_pause(self) -> bool:
        if monotonic() - self._claimed_at >= PAUSE:
            return False
        self._wake_in_a_moment()
        return True

    def _wake_in_a_moment(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self._loop.call_later(PAUSE, self._end_pause)
            self._wake_loop()

    def _end_pause(self) -> None:
        self._is_paused = False  # the loop is awake now, and claims in its turn

    def _deliver_next(self) -> None:
        channel, queue, payload = self._undelivered.popleft()
        if queue in channel.consumed:
            self._transport._deliver(payload, queue)

    def give_back_undelivered(self, channel: Channel, queue: str) -> None:
        """Free what was claimed for a consumer that is cancelled now."""
        kept: deque[tuple[Channel, str, dict[str, Any]]] = deque()
        given_back: defaultdict[Settler, list[Lease]] = defaultdict(list)
        for owner, name, payload in self._undelivered:
            if owner is channel and name == queue:
                held = channel.window.release(payload["properties"]["delivery_tag"])
                if held is not None:
                    given_back[held[1]].append(held[0])
            else:
                kept.append((owner, name, payload))
        self._undelivered = kept
        for settler, leases in given_back.items():
            settler.give_back(leases)

    # -- while Postgres cannot

    @property
    def _may_ask(self) -> bool:
        return monotonic() >= self._not_before

    @contextmanager
    def _bearing_with_postgres(self) -> Iterator[None]:
        """Put off what Postgres cannot do now: it is looked everywhere again in a moment, and settled before.

        An error that got out would be taken for the end of the session by Celery, and give back what runs.
        """
        try:
            yield
        except NotNow as error:
            pause, self._next_pause = self._next_pause, min(self._next_pause * 2, LONGEST_PAUSE)
            logger.warning("broker.not_now: %s Again in %.1f s.", error, pause)
            self._not_before = self._next_poll_at = monotonic() + pause
            if self._again_timer is None and self._loop is not None:
                self._again_timer = self._loop.call_later(pause, self._on_again)
                self._wake_loop()

    def _on_again(self) -> None:
        self._again_timer = None
        self._when_possible(self._poll)

    # -- without an event loop

    def deliver_one(self) -> bool:
        """Deliver one message, if there is one."""
        if not self._undelivered and self._may_ask:
            with self._bearing_with_postgres():
                self._transport.settler.flush()
                self._do_what_is_time()
                self._note_and_promote()
                self._claim()
        if not self._undelivered:
            return False
        self._deliver_next()
        return True

    def wait(self, seconds: float) -> None:
        """Wait for a notification, or for what is due, at most so long."""
        now = monotonic()
        wakes = [self._next_poll_at, self._next_sweep_at]
        wakes += [now] if self._must_look_again else []
        wakes += [at for at in (self._next_due_at, self._rechecks.next_at) if at is not None]
        wake = min(max(min(wakes), self._not_before), now + seconds)
        self._transport.session.wait(max(wake - now, 0.001))

    def _do_what_is_time(self) -> None:
        now = monotonic()
        if now >= self._next_sweep_at:
            self._sweep()
        if now >= self._next_poll_at:
            self._poll()
        self._recheck()

    def _recheck(self) -> None:
        for queue in self._rechecks.due(monotonic()):
            self.look_at(queue)

    def _poll(self) -> None:
        self._next_poll_at = monotonic() + self._transport.options.poll_interval
        self._look_everywhere()
        transport = self._transport
        if self._channels:
            self._isolation.look(transport.session, self.queues, self.look_at)
            dead_letters = self._sweeper.free_nobodys(transport.session, transport.options)
            transport.report_dead_letters(dead_letters)

    def _sweep(self) -> None:
        transport = self._transport
        self._next_sweep_at = monotonic() + transport.options.sweep_interval
        if not self._channels:
            return
        with transport.orphans.lock:
            transport.late.flush(transport.session)
        self._isolation.look_again(transport.session, self.queues, self.look_at)
        swept = self._sweeper.sweep(transport.session, transport.options)
        transport.report_expired(swept.expired)
        transport.report_dead_letters(swept.dead_letters)

    # -- in an event loop

    @property
    def is_in_loop(self) -> bool:
        return self._loop is not None

    def join_loop(self, loop: Any) -> None:
        """Let the loop (kombu's `Hub`) drive the consumers."""
        self.leave_loop()
        options = self._transport.options
        self._loop = loop
        self._waker = Waker(loop)
        loop.add_reader(self._transport.session.fileno(), self._on_readable)
        loop.on_tick.add(self._on_tick)
        self._timers = [
            loop.call_repeatedly(options.poll_interval, self._when_possible, self._poll),
            loop.call_repeatedly(options.sweep_interval, self._when_possible, self._sweep),
            loop.call_later(0, self._when_possible, self._poll),
            loop.call_later(
                0, self._when_possible, self._sweep
            ),  # a worker that replaces a dead one takes over at once
        ]

    def leave_loop(self) -> None:
        """Let go of the loop, whose sockets may be closed by now."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        loop.on_tick.discard(self._on_tick)
        for timer in [*self._timers, self._due_timer, self._recheck_timer, self._again_timer]:
            if timer is not None:
                timer.cancel()
        self._timers, self._due_timer, self._recheck_timer, self._is_paused = [], None, None, False
        self._again_timer, self._not_before = None, 0.0
        if self._waker is not None:
            self._waker.close()
            self._waker = None
        session = self._transport._session
        # libpq closes the socket of a broken connection, and somebody else may have its number already.
        if session is not None and loop.readers.get(session.fileno(), (None,))[0] == self._on_readable:
            with suppress(OSError, ValueError):
                loop.remove_reader(session.fileno())

    def _wake_loop(self) -> None:
        if self._waker is not None:
            self._waker.wake()

    def _on_readable(self) -> None:
        if self.is_in_loop:
            self._transport.session.receive()

    def _on_tick(self) -> None:
        if not self.is_in_loop:
            return
        if self._may_ask:
            with self._bearing_with_postgres():
                self._note_and_promote()
                settler = self._transport.settler
                # Where there is more to take, acknowledgements are written with it.
                if not (self._promising and settler.may_wait(PAUSE)):
                    settler.flush()
                if self._promising:
                    self._claim()
                    if settler.waiting():
                        self._wake_in_a_moment()
                if self._transport.session.has_news:
                    self._wake_loop()  # it came with an answer: the socket will not tell of it again
        self._set_recheck_timer()
        if self._undelivered or self._must_look_again:
            self._wake_loop()  # there may be more, and room for it
        if self._undelivered:
            while self._undelivered and self.is_in_loop:
                self._deliver_next()
            self._transport.report_delivered()  # now, and not when the loop has turned once more

    def _when_possible(self, work: Callable[[], None]) -> None:
        if self.is_in_loop and self._may_ask:
            with self._bearing_with_postgres():
                work()

    def _set_due_timer(self, seconds: float | None) -> None:
        if self._due_timer is not None:
            self._due_timer.cancel()
            self._due_timer = None
        if seconds is not None and self._loop is not None:
            self._due_timer = self._loop.call_later(max(seconds, 0.0), self._on_due)
            self._wake_loop()

    def _on_due(self) -> None:
        self._due_timer = None  # the loop is awake now, and promotes in its turn

    def _set_recheck_timer(self) -> None:
        next_at = self._rechecks.next_at
        if next_at is not None and self._recheck_timer is None:
            self._recheck_timer = self._loop.call_later(max(next_at - monotonic(), 0.0), self._on_recheck)
            self._wake_loop()

    def _on_recheck(self) -> None:
        self._recheck_timer = None
        if self.is_in_loop:
            self._recheck()

    # -- the end

    def end_consumer(self) -> None:
        """Give back everything and stop being a consumer, while the session still lives."""
        session = self._transport._session
        if session is None or session.consumer is None:
            return
        self._undelivered.clear()
        for channel in self._transport.open_channels:
            channel.give_back()
        for queue in self.queues:
            topology.unsubscribe(session, queue)
        if not session.is_of_process:
            bury(session, [session.consumer], self._transport.options)
        elif session.own_queues:
            session.run(topology.DELETE_QUEUES, {"queues": list(session.own_queues)})
