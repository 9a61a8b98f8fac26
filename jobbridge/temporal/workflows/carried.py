"""What one run of a workflow hands to the next, when its history is cut (continue-as-new)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from temporalio import workflow

from jobbridge.temporal.wire import contract
from jobbridge.temporal.wire.contract import JobInput
from jobbridge.temporal.wire.fire import Fire
from jobbridge.temporal.wire.references import DATA_REFERENCE, carried, needs_data
from jobbridge.temporal.workflows.progress import ToldProgress

#: Workflows that began under an earlier release do not: their history says so, and is replayed.
AS_SUGGESTED = "continues-as-new-when-suggested"
DRAINED = "drains-handlers"
#: A run does something before it hands on: its input alone may be as large as what the server suggests it for.
FEWEST_EVENTS = 10

Json = Any  # what json.loads returns


@dataclass(frozen=True, kw_only=True, slots=True)
class Carried:
    """The state of a job between two executions.

    Attributes:
        delivery: Of the last execution: by it a resumption is told from one that was executed.
        handover: The run that began the job; a message that is made of the workflow's input has it as its delivery.
        resumption: A message that came by signal, and was not executed yet.
        is_waiting: For the job's children: the next thing to do is to wait.
        is_unwritten: The progress is not in the row yet.
    """

    attempt: int = 0
    lost: int = 0
    requeued: int = 0
    started_at: str | None = None
    give_up: str | None = None
    delivery: str | None = None
    handover: str | None = None
    resumption: dict[str, Json] | None = None
    is_waiting: bool = False
    is_redelivery: bool = False
    step: str | None = None
    error: str | None = None
    progress: float = 0.0
    message: str | None = None
    is_unwritten: bool = False

    def to_json(self) -> dict[str, Json]:
        document = {
            "attempt": self.attempt,
            "lost": self.lost,
            "requeued": self.requeued,
            "startedAt": self.started_at,
            "giveUp": self.give_up,
            "delivery": self.delivery,
            "handover": self.handover,
            "resumption": self.resumption,
            "isWaiting": self.is_waiting,
            "isRedelivery": self.is_redelivery,
            "step": self.step,
            "error": self.error,
            "progress": self.progress,
            "message": self.message,
            "isUnwritten": self.is_unwritten,
        }
        return {name: value for name, value in document.items() if value not in (None, False)}

    @classmethod
    def from_memo(cls) -> Carried:
        """Read what the run before this one left.

        Raises:
            TypeError, ValueError: A client left something there that is none.
        """
        document = dict(workflow.memo_value(contract.STATE_MEMO, default=None) or {})
        lost, requeued = int(document.get("lost", 0)), int(document.get("requeued", 0))
        return cls(
            attempt=int(document.get("attempt", 0)),
            lost=lost,
            requeued=requeued,
            started_at=document.get("startedAt"),
            give_up=document.get("giveUp"),
            delivery=document.get("delivery"),
            handover=document.get("handover"),
            resumption=contract.message_of(document.get("resumption")),
            is_waiting=bool(document.get("isWaiting")),
            is_redelivery=bool(document.get("isRedelivery", requeued + lost > 0)),
            step=document.get("step"),
            error=document.get("error"),
            progress=float(document.get("progress", 0.0)),
            message=document.get("message"),
            is_unwritten=bool(document.get("isUnwritten")),
        )


def is_due() -> bool:
    """Whether Temporal finds this run's history long or large enough, and the run may say so."""
    info = workflow.info()
    return (
        info.is_continue_as_new_suggested()
        and info.get_current_history_length() >= FEWEST_EVENTS
        and workflow.patched(AS_SUGGESTED)
    )


async def drain(progress: ToldProgress) -> None:
    """Wait until no signal is being handled, and no progress written."""

    def is_quiet() -> bool:
        return workflow.all_handlers_finished() and not progress.is_writing

    if not is_quiet() and workflow.patched(DRAINED):
        await workflow.wait_condition(is_quiet)


def hand_on(job: JobInput, message: dict[str, Json] | None, fire: Fire | None, state: Carried) -> None:
    """End this run, and begin the next.

    The arguments go along only where nothing but the workflow's input has them.
    """
    message = carried(message)
    memo: dict[str, Json] = {contract.STATE_MEMO: state.to_json()}
    if fire is not None:
        memo[contract.SCHEDULE_MEMO] = fire.memo()
    if message is not None:
        memo[contract.MESSAGE_MEMO] = message
    document = job.to_json()
    if not needs_data(message):
        document["data"] = dict(DATA_REFERENCE)
    workflow.continue_as_new(document, memo=memo)
