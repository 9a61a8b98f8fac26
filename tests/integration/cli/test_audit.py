"""What commands change is on record, as what the dashboard changes is."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from jobbridge.cli.common import load_app
from jobbridge.cli.failures import REFUSED
from jobbridge.cli.root import jobbridge, run
from jobbridge.store.access.tokens import AccessStore, ActionRow

SHOP = """
from kombu import Exchange, Queue

from jobbridge import Celery, job

app = Celery("NAME")
app.conf.task_queues = [
    Queue("celery", routing_key="celery"),
    Queue("letters", Exchange("post", type="topic"), routing_key="mail.#"),
]

@app.task(name="sweep", shared=False)
def sweep(*args, **kwargs):
    pass
"""

#: They change nothing that is anybody's: they look, serve, or put the tables right.
LOOKS_ONLY = {
    "batches list", "batches show", "codec-server", "cutover check", "dashboard", "demo", "dev", "doctor",
    "events list", "explain", "handlers list", "jobs dead list", "jobs dead show", "jobs list", "jobs recount",
    "jobs show", "jobs watch", "keys list", "keys new", "maintain", "migrate", "queues list", "rules list",
    "schedules list", "schedules show", "temporal-setup", "temporal-worker", "tenants list", "tokens list",
}  # fmt: skip

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Iterator[str]:
    name = f"shop_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(SHOP.replace("NAME", name))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    yield name
    load_app(name).close()
    sys.modules.pop(name)


@pytest.fixture
def call(shop: str, capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: str) -> tuple[int, str, str]:
        code = run([*arguments, "-A", shop])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def newest(shop: str) -> Callable[[], ActionRow]:
    return lambda: AccessStore(load_app(shop).database).actions(limit=1)[0]


def _commands(group: click.Group = jobbridge, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{path}{name} ")
            if command.invoke_without_command:
                yield f"{path}{name}", command
        else:
            yield f"{path}{name}", command


def test_each_command_that_changes_something_asks_who_does_it() -> None:
    asking = {name for name, command in _commands() if any(option.name == "by" for option in command.params)}
    assert {name for name, _ in _commands()} - asking == LOOKS_ONLY


def test_what_each_command_does_is_on_record(call: Command, newest: Callable[[], ActionRow]) -> None:
    def done(*arguments: str) -> str:
        code, out, err = call(*arguments, "--by", "ada")
        assert code == 0, err
        told = newest()
        assert (told.actor, told.details["via"]) == ("ada", "command")
        said[told.action] = (told.tenant, told.subject, told.outcome, told.reason)
        return out

    said: dict[str, tuple[str | None, str | None, str, str | None]] = {}
    sent = json.loads(done("enqueue", "sweep", "--tenant", "acme", "--json"))["job_id"]
    done("jobs", "cancel", sent, "--reason", "wrong")
    again = json.loads(done("jobs", "retry", sent, "--new", "--json"))["job_id"]
    done("queues", "pause", "letters", "--note", "full")
    done("queues", "resume", "letters")
    done("schedules", "create", "sweep", "1 hour", "--name", "hourly", "--tenant", "acme")
    done("schedules", "pause", "hourly", "--note", "holidays")
    done("schedules", "resume", "hourly")
    done("schedules", "run", "hourly")
    done("schedules", "backfill", "hourly", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-01T00:00:01Z")
    done("schedules", "delete", "hourly")
    done("tokens", "create", "bob")
    done("tokens", "revoke", "bob")
    done("tenants", "suspend", "acme", "--reason", "unpaid")
    done("tenants", "resume", "acme")
    done("jobs", "cancel", again, "--whole", "--reason", "all")
    done("events", "send", "approval", "--job", again, "--payload", "{}")
    done("jobs", "dead", "retry", "--type", "sweep", "--tenant", "acme")
    done("jobs", "dead", "purge", "--type", "sweep", "--older-than", "1d", "--yes")
    done("rules", "set", "concurrency", "sweep", "3")
    done("rules", "remove", "concurrency", "sweep")
    done("cutover", "--to", "celery")
    done("tenants", "purge", "acme", "--yes")

    assert again != sent
    assert said == {
        "enqueue": ("acme", sent, "done", None),
        "cancel": ("acme", sent, "done", "wrong"),
        "run again": ("acme", sent, "done", None),
        "pause queue": (None, "letters", "done", "full"),
        "resume queue": (None, "letters", "done", None),
        "create schedule": ("acme", "hourly", "created", None),
        "pause schedule": ("acme", "hourly", "done", "holidays"),
        "resume schedule": ("acme", "hourly", "done", None),
        "run now schedule": ("acme", "hourly", "done", None),
        "backfill schedule": ("acme", "hourly", "done", None),
        "delete schedule": ("acme", "hourly", "done", None),
        "create token": (None, "bob", "done", None),
        "revoke token": (None, "bob", "done", None),
        "suspend": ("acme", None, "done", "unpaid"),
        "resume": ("acme", None, "done", None),
        "cancel all": ("acme", again, "done", "all"),
        "send event": ("acme", again, "kept", None),
        "retry dead": ("acme", None, "done", None),
        "purge dead": (None, None, "done", None),
        "set rule": (None, "sweep", "done", None),
        "remove rule": (None, "sweep", "done", None),
        "cutover": (None, "celery", "done", None),
        "purge": ("acme", None, "done", None),
    }


def test_what_came_to_nothing_is_on_record_with_its_reason(
    call: Command, newest: Callable[[], ActionRow]
) -> None:
    code, _, _ = call("tokens", "revoke", "nobody")
    assert code == REFUSED
    told = newest()
    assert (told.action, told.outcome) == ("revoke token", "refused")
    assert "nobody" in str(told.reason)
    assert "@" in told.actor, "the user of this machine"

    call("queues", "resume", "letters")
    assert newest().outcome == "was not paused"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mail.now", "is no queue but a routing key, of the queue 'letters'"),
        ("lettres", "Nobody knows a queue"),
    ],
)
def test_who_pauses_what_is_no_queue_is_warned(call: Command, name: str, told: str) -> None:
    for command in ("pause", "resume"):
        code, out, err = call("queues", command, name, "--json")
        assert code == 0
        assert told in json.loads(out)["warning"]
        assert told in err
        _, out, err = call("queues", command, "letters", "--json")
        assert "warning" not in json.loads(out)
        assert err == ""
