"""`jobbridge.transaction`: what is sent belongs to the caller's transaction, whatever that is made with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import chain, group
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

import jobbridge
from jobbridge.errors import ConfigurationError, UnsupportedOption
from tests.parity.conftest import World
from tests.support import clean_environment

TIMEOUT = 60


def sqlalchemy_connection(url: str) -> Any:
    return create_engine(url.replace("postgresql://", "postgresql+psycopg://")).connect()


def sqlalchemy_session(url: str) -> Any:
    return Session(create_engine(url.replace("postgresql://", "postgresql+psycopg://")))


@pytest.mark.parametrize("opened", [psycopg.connect, sqlalchemy_connection, sqlalchemy_session])
def test_commit_delivers_and_rollback_leaves_nothing(world: World, opened: Callable[[str], Any]) -> None:
    add = world.task("add")
    caller = opened(world.database_url)

    def send() -> tuple[Any, ...]:
        with jobbridge.transaction(caller, app=world.app):
            return (
                add.delay(1, 1),
                add.apply_async((2, 2)),
                chain(add.s(1, 2), add.s(3)).apply_async(),
                group(add.s(each, each) for each in range(3)).apply_async(),
            )

    def ids(sent: tuple[Any, ...]) -> list[str]:
        single, other, last, members = sent
        return [single.id, other.id, last.parent.id, *(each.id for each in members)]

    try:
        lost = send()
        caller.rollback()
        kept = send()
        assert world.rows("job_id = ANY(%s::uuid[])", [*ids(lost), *ids(kept)]) == []
        caller.commit()
    finally:
        caller.close()
        if (bind := getattr(caller, "bind", None) or getattr(caller, "engine", None)) is not None:
            bind.dispose()

    assert [each.get(timeout=TIMEOUT) for each in kept] == [2, 4, 6, [0, 2, 4]]
    assert world.rows("job_id = ANY(%s::uuid[])", ids(lost)) == []


_DJANGO = """
import sys
from urllib.parse import unquote, urlsplit

from django.conf import settings

url = urlsplit(sys.argv[1])
settings.configure(DATABASES={"default": {
    "ENGINE": "django.db.backends.postgresql",
    "HOST": url.hostname, "PORT": url.port, "USER": url.username, "PASSWORD": unquote(url.password),
    "NAME": url.path[1:],
}})

from django.db import connection, transaction

import jobbridge
from jobbridge import Celery
from jobbridge.errors import UnsupportedOption

app = Celery("shop")


@app.task(name="parity.add")
def add(x, y):
    return x + y


engine = sys.argv[2]
try:
    with transaction.atomic():
        with jobbridge.transaction():
            lost = add.apply_async((1, 1), engine=engine)
        raise LookupError
except LookupError:
    pass
with transaction.atomic(), jobbridge.transaction():
    kept = [add.apply_async((2, 2), engine=engine)]
    try:
        with transaction.atomic():  # a savepoint
            also_lost = add.apply_async((3, 3), engine=engine)
            raise LookupError
    except LookupError:
        pass
with transaction.atomic(), jobbridge.transaction(connection):
    kept.append(add.apply_async((4, 4), engine=engine))
try:
    with jobbridge.transaction():
        raise AssertionError
except UnsupportedOption as refused:
    assert "atomic" in refused.hint
print(" ".join([lost.id, also_lost.id]), "/", " ".join(each.id for each in kept))
"""


def test_in_atomic_blocks_of_django(world: World) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _DJANGO, world.database_url, world.engine.value],
        env=clean_environment({**world.environment, "DATABASE_URL": world.database_url}),
        cwd=Path(__file__).parent, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lost, kept = (part.split() for part in done.stdout.split("/"))

    for task_id in kept:
        world.wait_for_status(task_id, "completed")
    assert world.rows("job_id = ANY(%s::uuid[])", lost) == []


def test_what_is_no_transaction_is_refused(world: World) -> None:
    with (
        psycopg.connect(world.database_url, autocommit=True) as caller,
        pytest.raises(UnsupportedOption, match="no transaction is open"),
        jobbridge.transaction(caller, app=world.app),
    ):
        raise AssertionError
    with (
        psycopg.connect(world.database_url, autocommit=True) as caller,
        caller.transaction(),
        jobbridge.transaction(caller, app=world.app),
    ):
        sent = world.task("add").delay(5, 5)
    assert sent.get(timeout=TIMEOUT) == 10


def test_without_a_connection_and_without_django_it_says_what_to_pass(world: World) -> None:
    with pytest.raises(ConfigurationError, match=r"Django.*not set up"), jobbridge.transaction(app=world.app):
        raise AssertionError
