"""`jobbridge keys new|list`."""

from __future__ import annotations

import base64
import os

import click

from jobbridge.cli.common import (
    app_option,
    app_option_of_group,
    json_option,
    load_app,
    tell_table,
    write_json,
)
from jobbridge.codec.keys import SIZE


@click.group("keys")
@app_option_of_group
def command() -> None:
    """Make a key for JOBBRIDGE_ENCRYPTION_KEYS; see which keys are in use."""


@command.command("new")
@click.argument("key_id", metavar="ID")
def new(key_id: str) -> None:
    """Print a new key as the setting has it, ID:KEY. Put it in front of the others once all have it."""
    from jobbridge.codec.keys import KeyRing

    text = f"{key_id}:{base64.b64encode(os.urandom(SIZE)).decode()}"
    KeyRing.parse(text)  # it checks the id
    click.echo(text)


@command.command("list")
@app_option
@json_option
def list_keys(app_name: str | None, as_json: bool) -> int:
    """List the keys that are here, and those by which rows and messages are encrypted. Reads all tables.

    The exit code is 5 if a key is missing.
    """
    from jobbridge.store.monitor.sealed import count_keys

    database = load_app(app_name).database
    here, used = database.codec.key_ids, count_keys(database)
    names = [*here, *sorted(used.keys() - set(here))]
    rows = [
        {
            "key": name,
            "rows": used.get(name, 0),
            "is_here": name in here,
            "writes": name == (here or [None])[0],
        }
        for name in names
    ]
    if as_json:
        write_json(rows)
    else:
        shown = [(str(row["key"]), f"{row['rows']:,}", _state(row["is_here"], row["writes"])) for row in rows]
        tell_table(shown, "key", "rows", "", empty="There are no keys, and nothing is encrypted.")
    return 0 if used.keys() <= set(here) else 5


def _state(is_here: object, writes: object) -> str:
    return "writes" if writes else "reads" if is_here else "is missing"
