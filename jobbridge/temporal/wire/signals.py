"""What signals tell a job's workflow. As the contract: the standard library alone, and read tolerantly.

Texts are cut as they come in: a workflow tells them again, and what is too long for Temporal would keep it running and
trying for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobbridge.temporal.wire.contract import Json, cut, cut_name

#: A signal that carries it tells what the row says already, so the workflow does not write it there.
SOURCE_ROW = "row"


@dataclass(frozen=True, kw_only=True, slots=True)
class CancelRequest:
    """Signal `cancelJob {reason, cancelledBy?}`."""

    reason: str
    cancelled_by: str | None = None

    @classmethod
    def from_json(cls, document: Json) -> CancelRequest:
        fields = document if isinstance(document, dict) else {"reason": document}
        reason, by = fields.get("reason"), fields.get("cancelledBy")
        return cls(
            reason=cut(str(reason)) if reason else "cancelled", cancelled_by=cut_name(str(by)) if by else None
        )

    def to_json(self) -> dict[str, Json]:
        document = {"reason": cut(self.reason)}
        return document if self.cancelled_by is None else {**document, "cancelledBy": self.cancelled_by}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgressUpdate:
    """Signal `updateProgress {progress, message?}`; progress from 0 to 100."""

    progress: float
    message: str | None = None
    is_recorded: bool = False

    @classmethod
    def from_json(cls, document: Json) -> ProgressUpdate | None:
        """Read it; None when it is no progress."""
        fields = document if isinstance(document, dict) else {"progress": document}
        value = fields.get("progress")
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            return None
        message = fields.get("message")
        return cls(
            progress=max(0.0, min(100.0, float(value))),
            message=None if message is None else cut(str(message)),
            is_recorded=fields.get("source") == SOURCE_ROW,
        )

    def to_json(self) -> dict[str, Json]:
        document: dict[str, Json] = {"progress": self.progress, "message": self.message}
        return {**document, "source": SOURCE_ROW} if self.is_recorded else document


@dataclass(frozen=True, kw_only=True, slots=True)
class ToldEnd:
    """Signal `endJob {status, error?, errorType?, result?}`; status is that of a row that has ended."""

    status: str
    error: str | None = None
    error_type: str | None = None
    result: Json = None

    @classmethod
    def from_json(cls, document: Json) -> ToldEnd | None:
        """Read it; None when it tells no end."""
        fields = document if isinstance(document, dict) else {}
        status, error, kind = fields.get("status"), fields.get("error"), fields.get("errorType")
        if status not in ("completed", "failed", "cancelled", "expired", "skipped"):
            return None
        return cls(
            status=status,
            error=None if error is None else cut(str(error)),
            error_type=None if kind is None else cut_name(str(kind)),
            result=fields.get("result"),
        )

    def to_json(self) -> dict[str, Json]:
        error = None if self.error is None else cut(self.error)
        document = {
            "status": self.status, "error": error, "errorType": self.error_type, "result": self.result,
        }  # fmt: skip
        return {name: value for name, value in document.items() if value is not None}
