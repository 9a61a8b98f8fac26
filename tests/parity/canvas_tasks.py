"""Tasks of the tests of canvas: chords, chains, and what follows from an end."""

from __future__ import annotations

from typing import Any

from celery import chord, group, shared_task

from tests.parity.tasks import add, echo, note, wait_for_file


@shared_task(name="parity.one")
def one(value: Any = 1) -> Any:
    return value


@shared_task(name="parity.counts_up")
def counts_up(value: int, name: str = "counts_up", release: str | None = None) -> int:
    """Note that it ran, and give one more; before that, wait for the test if it says so."""
    note(name, str(value))
    if release:
        wait_for_file(release)
    return value + 1


@shared_task(name="parity.body")
def body(values: Any) -> Any:
    note("body", repr(values))
    return values


@shared_task(name="parity.grows", bind=True)
def grows(self: Any, number: int) -> int:
    """Be a part that adds others to its chord."""
    for extra in range(number):
        self.add_to_chord(add.s(10, extra))
    return 0


@shared_task(name="parity.becomes_chord", bind=True)
def becomes_chord(self: Any, number: int) -> Any:
    return self.replace(chord([add.s(each, 1) for each in range(number)], body.s()))


@shared_task(name="parity.becomes_group", bind=True)
def becomes_group(self: Any, number: int) -> Any:
    return self.replace(group(add.s(each, 1) for each in range(number)))


@shared_task(name="parity.becomes_chain", bind=True)
def becomes_chain(self: Any, release: str) -> Any:
    return self.replace(counts_up.s(0, "link", release) | echo.s())
