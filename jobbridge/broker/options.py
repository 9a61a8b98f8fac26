"""The transport options: ours, and the rest, which is SQLAlchemy's.

| option | default | meaning |
|---|---|---|
| `max_deliveries` | 5 | deliveries, the last one alone, after which an unsettled message is a dead letter; 0: never |
| `on_dead_letter` | none | called with the headers (a dict) and the reason (a str) of each dead letter |
| `not_begun` | none | called with headers of messages and numbers of dead consumers; gives ids of those not begun |
| `on_purge` | none | called with the name of a queue that is purged; gives how many more messages that concerns |
| `on_expired` | none | called with the headers of each message that was dropped because its time to live was over |
| `poll_interval` | 60.0 | seconds between looks that nothing asked for; NOTIFY asks for the others |
| `sweep_interval` | 3.5 | seconds between looks for consumers that died |
| `number_of_process` | none | gives the number under which a worker's process holds leases |
| `beyond_prefetch` | none | gives how many messages may be taken now beyond the prefetch count |
| `on_delivered` | none | called in an event loop when all messages that were claimed together have been delivered |

What is left over from another broker (`visibility_timeout`, `master_name`) is told once and ignored. Everything else
goes to `sqlalchemy.create_engine`, as with kombu's own SQLAlchemy transport; what that does not know is refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from jobbridge.broker.errors import InvalidOption
from jobbridge.broker.foreign_options import FOREIGN, tell

#: Options that kombu reads itself, or writes into ours (`Producer.publish(retry_policy=…)`; kombu 5.7, messaging.py).
_KOMBU: Final = frozenset(
    [
        *(
            "callback",
            "errback",
            "max_retries",
            "interval_start",
            "interval_step",
            "interval_max",
            "retry_errors",
        ),
        *("on_revive", "connect_retries_timeout", "polling_interval", "body_encoding", "deadletter_queue"),
        *("queue_tablename", "message_tablename", "confirm_publish"),
    ]
)

#: More than a smallint counts: never.
UNLIMITED: Final = 32_000
NOBODY: Final = 32_767


@dataclass(frozen=True, kw_only=True)
class Options:
    """The transport options, checked."""

    max_deliveries: int = 5
    on_dead_letter: Callable[[dict[str, Any], str], None] | None = None
    not_begun: Callable[[list[dict[str, Any]], list[int]], set[str]] | None = None
    on_expired: Callable[[dict[str, Any]], None] | None = None
    on_purge: Callable[[str], int] | None = None
    poll_interval: float = 60.0
    sweep_interval: float = 3.5
    number_of_process: Callable[[], int | None] | None = None
    beyond_prefetch: Callable[[], int] | None = None
    on_delivered: Callable[[], None] | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def deliveries_allowed(self) -> int:
        return min(self.max_deliveries, UNLIMITED) if self.max_deliveries else UNLIMITED

    @property
    def suspect_from(self) -> int:
        """What was delivered so often has one delivery left, and runs alone (`consume.isolation`)."""
        return self.deliveries_allowed - 1 if 1 < self.deliveries_allowed < UNLIMITED else NOBODY

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Read transport options.

        Raises:
            InvalidOption: A value is out of range. (A name that nobody knows is found by `unknown_option`.)
        """
        own = {name: given[name] for name in OWN if name in given}
        rest = {name: value for name, value in given.items() if name not in OWN and name not in _KOMBU}
        if foreign := rest.keys() & FOREIGN.keys():
            tell(foreign)
            rest = {name: value for name, value in rest.items() if name not in foreign}
        options = cls(**own, engine=rest)
        options._check()
        return options

    def _check(self) -> None:
        if not isinstance(self.max_deliveries, int) or self.max_deliveries < 0:
            raise InvalidOption(
                f"max_deliveries is {self.max_deliveries!r}.", hint="Give a whole number, or 0 for no limit."
            )
        for name in ("poll_interval", "sweep_interval"):
            if not isinstance(value := getattr(self, name), int | float) or not 0 < value <= 60:
                # What is due within a minute is notified; see `publishing`.
                raise InvalidOption(f"{name} is {value!r}.", hint="Give seconds: more than 0, at most 60.")


OWN: Final = tuple(each.name for each in fields(Options) if each.name != "engine")


def unknown_option(error: TypeError, options: Options) -> InvalidOption:
    """Turn SQLAlchemy's complaint about an argument into one about a transport option."""
    unknown = [name for name in options.engine if f"'{name}'" in str(error)] or list(options.engine)
    near = difflib.get_close_matches(unknown[0], [*OWN, *FOREIGN], n=1)
    hint = (
        f"Did you mean {near[0]!r}?" if near else f"Ours are {', '.join(OWN)}; others go to create_engine()."
    )
    return InvalidOption(f"Transport option {unknown[0]!r} is not known.", hint=hint)
