"""Tasks that carry a secret in all that a job carries."""

from __future__ import annotations

from typing import Any

from celery import shared_task

from jobbridge import JobContext, RetryPolicy, job
from tests.parity.tasks import note, wait_for_file


@shared_task(name="parity.secret_echo")
def echo(secret: str, **more: Any) -> dict[str, Any]:
    return {"echo": secret, **more}


@shared_task(name="parity.secret_echo_bytes")
def echo_bytes(secret: str) -> bytes:
    return secret.encode()


@shared_task(name="parity.secret_raises")
def raises(secret: str) -> None:
    raise ValueError(f"no {secret}")


@shared_task(name="parity.secret_raises_first", bind=True, max_retries=2)
def raises_first(self: Any, secret: str) -> str:
    if note("raises_first") == 1:
        raise self.retry(exc=ValueError(f"once {secret}"), countdown=0.1)
    return secret


@shared_task(name="parity.secret_join")
def join(parts: list[Any], secret: str) -> str:
    return "".join(part["echo"] for part in parts) + secret


@shared_task(name="parity.secret_tells", bind=True)
def tells(self: Any, secret: str) -> str:
    self.update_state(state="HALFWAY", meta={"said": secret})
    note("told")
    wait_for_file("go")
    return "done"


@job("parity.secret_keeps", retry=RetryPolicy(max_attempts=1))
def keeps_a_secret(context: JobContext, data: dict[str, Any]) -> dict[str, Any]:
    context.progress(40, message=data["secret"])
    with context.step("hide", key="one") as step:
        step.result = {"hidden": data["secret"]}
    note("kept")
    wait_for_file("go")
    return {"kept": data["secret"]}


@job("parity.secret_fans")
def fans(context: JobContext, data: dict[str, Any]) -> Any:
    return context.fan_out("parity.secret_child", [{"item": number, **data} for number in range(3)])


@job("parity.secret_child")
def child(context: JobContext, data: dict[str, Any]) -> str:
    return str(data["secret"])
