"""Redis of the system (.ci/server installs it): for tools of others that keep their locks there."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from jobbridge.dev.process import ManagedProcess, free_port
from tests.support import wait_until


@contextmanager
def run_redis(folder: Path) -> Iterator[str]:
    """Run one until the block ends, and give its URL."""
    binary = shutil.which("redis-server")
    assert binary is not None, "redis-server is not installed: run `make setup` as root, or install it"
    port = free_port()
    argv = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    process = ManagedProcess(
        name="Redis", argv=argv, log_path=folder / "redis.log", env=dict(os.environ)
    ).start()
    try:
        url = f"redis://127.0.0.1:{port}/0"
        wait_until(lambda: _answers(url), message=f"Redis; its log:\n{process.tail(20)}")
        yield url
        gc.collect()  # results of Celery's unsubscribe when they go, and fail if it is gone then
    finally:
        process.kill()


def _answers(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False
