"""Whether this process has the keys by which rows and messages are sealed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobbridge.diagnosis.findings import Check, bad, good, some
from jobbridge.store.monitor.sealed import sample_keys

if TYPE_CHECKING:
    from jobbridge.app.application import Celery


def check_keys(app: Celery) -> list[Check]:
    """Look at the oldest and the newest rows and messages; nothing where there are no keys and nothing is sealed."""
    here, used = app.database.codec.key_ids, sample_keys(app.database)
    if not here and not used:
        return []
    missing = {name: is_waiting for name, is_waiting in used.items() if name not in here}
    if not missing:
        return [good("encryption", f"{here[0]!r} writes" + _reading(here[1:]))]
    named = [
        f"{name!r} (jobs that are still to run need it)" if is_waiting else repr(name)
        for name, is_waiting in missing.items()
    ]
    return [
        bad(
            "encryption",
            f"rows or messages are encrypted by keys that are not here: {some(named)}; "
            f"here are: {some([repr(name) for name in here]) or 'none'}",
            "Add them to JOBBRIDGE_ENCRYPTION_KEYS of every process, behind the first one, which writes. "
            "`jobbridge keys list` counts all rows by their key.",
        )
    ]


def _reading(names: tuple[str, ...]) -> str:
    return f"; {some([repr(name) for name in names])} read" if names else ""
