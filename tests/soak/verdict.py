"""What came of the soak: the rows against the ledger that the tasks themselves wrote."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from jobbridge.app.execute.carried import LATE
from tests.soak.work import Sent
from tests.soak.world import World

#: Clocks of one machine, read in two processes. Seconds.
_SKEW = 0.01


@dataclass
class Verdict:
    """The numbers, and what is wrong."""

    numbers: dict[str, Any] = field(default_factory=dict)
    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def judge(world: World, sent: Sent) -> Verdict:
    """Compare what was sent, what ran and what the rows say."""
    verdict = Verdict()
    begun: dict[str, list[float]] = defaultdict(list)
    ended: dict[str, list[float]] = defaultdict(list)
    for line in world.ledger.read_text().splitlines():
        word, task_id, _, at, _ = line.split()
        (begun if word == "begin" else ended)[task_id].append(float(at))
    rows = {
        row[0]: row[1:]
        for row in world.look(
            "SELECT task_id, status, extract(epoch FROM completed_at)::float, result, error, attempt FROM jobs"
        )
    }
    for task_id, kind in sent.kinds.items():
        _judge_one(verdict, task_id, kind, rows.get(task_id), begun[task_id], ended[task_id], sent)
    if unknown := set(rows) - set(sent.kinds):
        verdict.wrong["nobody sent it"] += sorted(unknown)
    _judge_tables(verdict, world)
    verdict.numbers |= {
        "jobs": len(sent.kinds),
        "by status": dict(Counter(row[0] for row in rows.values())),
        "runs begun": sum(map(len, begun.values())),
        "runs ended": sum(map(len, ended.values())),
        "cancels confirmed": len(sent.cancelled),
        "broken": dict(world.done),
    }
    return verdict


def _judge_one(
    verdict: Verdict, task_id: str, kind: str, row: Any, begun: list[float], ended: list[float], sent: Sent
) -> None:
    wrong = verdict.wrong
    if row is None:
        wrong["has no row"].append(f"{kind} {task_id}")
        return
    status, completed_at, result, error, attempt = row
    told = f"{kind} {task_id} {status} after {attempt} attempts: {error}"
    if completed_at is None:
        wrong["is not final"].append(told)
        return
    if status == "cancelled" and kind == "cancel":
        confirmed = sent.cancelled.get(task_id, completed_at)
        # Of one that was claimed before, its process may begin a moment later without looking (`carried.LATE`).
        moment = _SKEW if attempt == 0 else LATE + 0.1
        if late := [at for at in begun if at > confirmed + moment]:
            wrong["ran after its cancel was confirmed"].append(f"{told}, at {late}")
        return
    if status != "completed" or task_id in sent.cancelled:
        wrong["did not complete"].append(told)
        return
    if not ended:
        wrong["completed and did not run"].append(told)
    if late := [at for at in begun if at > completed_at + _SKEW]:
        wrong["ran again after its end"].append(f"{told}, {late[0] - completed_at:.3f} s later")
    expected = sent.results.get(task_id, result)
    if result != expected:
        wrong["has another result"].append(f"{told} {result} {expected}")


def _judge_tables(verdict: Verdict, world: World) -> None:
    left = {
        table: world.look(f"SELECT count(*) FROM {table}")[0][0]
        for table in ("jobbridge_broker.messages", "jobbridge_broker.dead_letters", "job_chords", "job_keys")
    }
    verdict.numbers["left"] = left
    verdict.wrong["left behind"] += [f"{number} in {table}" for table, number in left.items() if number]
    for message in world.look(
        "SELECT to_jsonb(m) - 'body' - 'properties', to_jsonb(c) FROM jobbridge_broker.messages AS m"
        " LEFT JOIN jobbridge_broker.consumers AS c ON c.id = leased_by LIMIT 3"
    ):
        verdict.wrong["left behind"].append(str(message))
    [(size,)] = world.look("SELECT pg_total_relation_size('jobbridge_broker.messages')")
    verdict.numbers["bytes of an empty table of messages"] = size
    if not verdict.wrong["left behind"]:
        del verdict.wrong["left behind"]
