"""The program `shop` of the pages that have none of their own."""

import time

from jobbridge import Celery, Child, JobContext, get_job_runner, job

app = Celery("shop")


@app.task(name="bill")
def bill(order: int) -> int:
    return order


@app.task(name="wait")
def wait(seconds: float) -> None:
    """Last until it is cancelled."""
    time.sleep(seconds)


@job("report")
def report(ctx: JobContext, data: dict[str, str]) -> dict[str, str]:
    return data


@job("invoice.send")
def send(ctx: JobContext, data: dict[str, str]) -> None:
    if "broken" in data:
        raise ValueError("broken")


def done(engine: str | None = None) -> str:
    """Give the id of a job that is completed."""
    result = bill.apply_async((7,), engine=engine)
    result.get(timeout=30)
    return result.id


def parent() -> str:
    """Give the id of a parent one of whose children failed."""
    runner = get_job_runner()
    job = runner.fan_out("invoice.send", [Child(data={}), Child(data={"broken": "yes"})], {})
    app.AsyncResult(job.job_id).get(timeout=60, propagate=False)
    return job.job_id
