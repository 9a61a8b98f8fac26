"""Tasks for what is too large."""

from __future__ import annotations

from typing import Any

from celery import shared_task


@shared_task(name="parity.length")
def length(text: str) -> int:
    return len(text)


@shared_task(name="parity.returns_much")
def returns_much(size: int) -> str:
    return "x" * size


@shared_task(name="parity.says_much", bind=True)
def says_much(self: Any, size: int) -> str:
    try:
        self.update_state(state="HALFWAY", meta={"text": "x" * size})
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "said"


@shared_task(name="parity.raises_much")
def raises_much(size: int) -> None:
    raise ValueError("x" * size)


@shared_task(name="parity.large_fails")
def large_fails(text: str) -> None:
    raise ValueError(len(text))


@shared_task(name="parity.large_retries", bind=True)
def large_retries(self: Any, text: str) -> None:
    raise self.retry(countdown=3600)


@shared_task(name="parity.large_retries_once", bind=True)
def large_retries_once(self: Any, text: str) -> list[int]:
    if self.request.retries == 0:
        raise self.retry(countdown=0.1)
    return [self.request.retries, len(text)]
