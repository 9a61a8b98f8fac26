"""Who this process is, for `pg_stat_activity`: `jobbridge worker w1@host broker`."""

from __future__ import annotations

from typing import Final

#: NAMEDATALEN - 1: Postgres cuts a longer application_name, at its end, where our purpose stands.
MOST_BYTES: Final = 63

_who = ""


def identify(who: str) -> None:
    """Name this process, and those that it forks: `worker w1@host`, `beat`, `dashboard`."""
    global _who  # one process, one name
    _who = who


def is_identified() -> bool:
    """Tell whether this process has a name of its own."""
    return bool(_who)


def application_name(purpose: str, *, product: str = "jobbridge") -> str:
    """Give the name of a connection; the middle is cut where it is too long, its purpose never.

    Args:
        purpose: What the connection is for: `broker`, `jobs`, `presence`.
        product: What it begins with.
    """
    who = f"{product} {_who}".strip().encode("ascii", "replace")
    room = MOST_BYTES - len(purpose.encode("ascii", "replace")) - 1
    if len(who) > room:
        who = who[: max(room - 1, 0)] + b"~"
    return f"{who.decode()} {purpose}"[:MOST_BYTES]
