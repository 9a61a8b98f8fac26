"""What is asked for, and what came of it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from jobbridge.core.keys import Engine
from jobbridge.store.moves.jobs import Selection


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What is to be moved.

    Attributes:
        to: The engine that it goes to.
        jobs: Names of tasks, with `*` and `?`; None: all.
        tenant: Only this one's.
        schedules: Schedules, too.
        batch: Jobs that one transaction moves.
    """

    to: Engine
    jobs: str | None = None
    tenant: str | None = None
    schedules: bool = False
    batch: int = 100

    @property
    def origin(self) -> Engine:
        """The engine that it comes from."""
        return Engine.CELERY if self.to is Engine.TEMPORAL else Engine.TEMPORAL

    @property
    def pattern(self) -> str | None:
        """The names as a regular expression of Postgres."""
        return None if self.jobs is None else f"^{pattern_of(self.jobs)}$"

    def selection(self, engine: Engine) -> Selection:
        """Give which jobs of an engine are meant."""
        return Selection(engine=engine, pattern=self.pattern, tenant=self.tenant)


def pattern_of(names: str) -> str:
    """Give a regular expression for names with `*` and `?`."""
    special = {"*": ".*", "?": "."}
    return "".join(special.get(each, re.escape(each)) for each in names)


@dataclass(kw_only=True, slots=True)
class Report:
    """What came of it.

    Attributes:
        moved: How many jobs went, by the status that they waited in.
        staying: Open jobs that stay where they are, by why.
        unreadable: Why a job could not be moved, by its task id.
        waiting: Open jobs of the engine that they went to, by status; of a plan: of the one that they would leave.
        schedules: How many schedules went.
        staying_schedules: Those that stay, and why.
        ended: How many workflows, or activities without one, were ended because their job had gone.
        problems: What does not agree, or could not be done. None: all is verified.
        notes: What else whoever moved it should know.
    """

    moved: Counter[str] = field(default_factory=Counter)
    staying: Counter[str] = field(default_factory=Counter)
    unreadable: dict[str, str] = field(default_factory=dict)
    schedules: int = 0
    staying_schedules: dict[str, str] = field(default_factory=dict)
    ended: int = 0
    waiting: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_verified(self) -> bool:
        """Whether both sides agree."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Give it for programs."""
        return {
            "moved": dict(self.moved),
            "staying": dict(self.staying),
            "unreadable": self.unreadable,
            "schedules": self.schedules,
            "staying_schedules": self.staying_schedules,
            "ended": self.ended,
            "waiting": self.waiting,
            "verified": self.is_verified,
            "problems": self.problems,
            "notes": self.notes,
        }
