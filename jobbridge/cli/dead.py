"""`jobbridge jobs dead list|show|retry|purge`: what was given up, on both engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from jobbridge.cli.audit import by_option, on_record
from jobbridge.cli.common import (
    Command,
    ago,
    app_option,
    app_option_of_group,
    engine_option,
    json_option,
    load_app,
    tell,
    tell_table,
    visible,
    write_json,
)
from jobbridge.cli.failures import REFUSED
from jobbridge.core.keys import Engine, TenantId
from jobbridge.errors import JobNotFound

if TYPE_CHECKING:
    from jobbridge.app.application import Celery
    from jobbridge.app.dead.letters import DeadFilter, Groups, Letter
    from jobbridge.app.dead.redrive import Redriven

_GROUP_DIGITS = 10
_REFUSALS_SHOWN = 10


def _filters(command: Command) -> Command:
    options: list[Callable[[Command], Command]] = [
        click.option("--tenant", metavar="ID", help="Only this tenant's."),
        click.option("--type", "type_", metavar="NAME", help="The handler's name."),
        click.option("--group", metavar="GROUP", help="Of errors that are alike, as `list` names it."),
        engine_option,
        click.option("--queue"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _where(
    tenant: str | None, type_: str | None, group: str | None, engine: str | None, queue: str | None
) -> DeadFilter:
    from jobbridge.app.dead.letters import DeadFilter

    return DeadFilter(
        tenant=TenantId(tenant) if tenant else None,
        type=type_,
        group=group,
        engine=Engine(engine) if engine else None,
        queue=queue,
    )


def _told(where: DeadFilter) -> dict[str, Any]:
    told = {name: value for name, value in asdict(where).items() if value is not None and name != "tenant"}
    return told | ({"ids": sorted(where.ids)} if where.ids else {})


@click.group("dead")
@app_option_of_group
def dead() -> None:
    """List, show, retry and purge what was given up, on both engines."""


@dead.command("list")
@_filters
@click.option("--each", is_flag=True, help="Each by itself, and not by type and error.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@app_option
@json_option
def list_dead(each: bool, limit: int, app_name: str | None, as_json: bool, **filters: Any) -> None:
    """List what was given up by type and error, the most first; with --group or --each, each by itself."""
    from jobbridge.app.dead.letters import groups

    app, where = load_app(app_name), _where(**filters)
    if each or where.group is not None:
        _list_each(app, where, limit, as_json)
        return
    found = groups(app, where)
    if as_json:
        write_json({**asdict(found), "groups": [asdict(group) for group in found.groups[:limit]]})
        return
    _tell_groups(found, limit)


def _tell_groups(found: Groups, limit: int) -> None:
    rows = [
        (
            group.group,
            group.type,
            ", ".join(group.engines),
            f"{group.letters:,}",
            ago(group.last_at),
            group.error,
        )
        for group in found.groups[:limit]
    ]
    tell_table(rows, "group", "type", "engine", "dead", "the last", "error", empty="Nothing was given up.")
    if len(found.groups) > limit:
        click.echo(f"There are {len(found.groups) - limit} more groups; --limit shows more of them.")
    if found.is_cut:
        click.echo(f"The first {found.looked_at:,} to die are in these groups; there are more.")


def _list_each(app: Celery, where: DeadFilter, limit: int, as_json: bool) -> None:
    from jobbridge.app.dead.letters import letters

    found = list(islice(letters(app, where), limit + 1))
    if as_json:
        write_json([_plain(letter) for letter in found[:limit]])
        return
    rows = [
        (each.id, each.type, each.engine.value, str(each.attempts), ago(each.died_at), each.error)
        for each in found[:limit]
    ]
    tell_table(rows, "job", "type", "engine", "attempts", "died", "error", empty="There are no such ones.")
    if len(found) > limit:
        click.echo("There are more; --limit shows more of them.")


@dead.command("show")
@click.argument("which")
@app_option
@json_option
def show(which: str, app_name: str | None, as_json: bool) -> None:
    """Show one that was given up, or a group. WHICH is the id of a job, of a message, or of a group."""
    from jobbridge.app.dead.letters import DeadFilter, by_id, groups

    app = load_app(app_name)
    if len(which) == _GROUP_DIGITS and "-" not in which:
        found = groups(app, DeadFilter(group=which))
        if found.groups:
            tell(as_json, asdict(found.groups[0]), "\n".join(_lines(asdict(found.groups[0]))))
            return
    letter = by_id(app, which)
    if letter is None:
        raise JobNotFound(
            f"Nothing that was given up has the id {which!r}.", hint="See `jobbridge jobs dead list`."
        )
    tell(as_json, _plain(letter), "\n".join(_lines(_plain(letter))))


def _lines(facts: dict[str, Any]) -> list[str]:
    told = {name: value for name, value in facts.items() if value not in (None, "")}
    width = max(map(len, told))
    return [f"{name:<{width}}  {_text(value)}" for name, value in told.items()]


def _text(value: Any) -> str:
    return visible(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))


@dead.command("retry")
@click.argument("ids", nargs=-1)
@_filters
@click.option("--all", "all_of_them", is_flag=True, help="Whatever was given up.")
@click.option("--rate", metavar="N/s", help="At most so many: 50/s, 100/m, 10/h.")
@click.option(
    "--anew", is_flag=True, help="Forget one that was broken off: also what it sent, and failed since."
)
@by_option
@app_option
@json_option
def retry(
    ids: tuple[str, ...],
    all_of_them: bool,
    rate: str | None,
    anew: bool,
    by: str | None,
    app_name: str | None,
    as_json: bool,
    **filters: Any,
) -> int:
    """Send again what was given up, each once; the first to die first.

    Name jobs, or filter, or say --all. If it is broken off, the same command goes on where it was. The exit code is 5
    when some were refused.
    """
    from dataclasses import replace

    from jobbridge.app.dead.letters import DeadFilter
    from jobbridge.app.dead.redrive import rate_of, redrive

    where = _where(**filters)
    if ids:
        where = replace(where, ids=frozenset(ids))
    if where == DeadFilter() and not all_of_them:
        raise click.UsageError("Say which: ids, a filter, or --all.")
    app = load_app(app_name)
    with on_record(app, "retry dead", by=by, tenant=where.tenant, details=_told(where)) as entry:
        done = redrive(app, where, rate=rate_of(rate) if rate else None, anew=anew)
        entry.details |= {"sent": done.sent, "refused": done.refused.total()}
    _tell_redriven(done, as_json)
    return REFUSED if done.refused else 0


def _tell_redriven(done: Redriven, as_json: bool) -> None:
    if as_json:
        write_json(asdict(done))
        return
    begun = f", going on with what began {ago(done.began_at)}" if done.goes_on else ""
    click.echo(f"Sent {done.sent:,} again{begun}.")
    if done.passed:
        click.echo(f"{done.passed:,} ran again, or went, meanwhile.")
    for reason, number in done.refused.most_common(_REFUSALS_SHOWN):
        click.echo(f"Not sent, {number:,}: {visible(reason)}", err=True)


@dead.command("purge")
@_filters
@click.option("--older-than", required=True, metavar="TIME", help='Given up so long ago: "30 days", 12h.')
@click.option("--yes", is_flag=True, help="Do not ask.")
@by_option
@app_option
@json_option
def purge(
    older_than: str, yes: bool, by: str | None, app_name: str | None, as_json: bool, **filters: Any
) -> None:
    """Delete what was given up long ago: jobs with their steps, and messages. Nothing brings them back."""
    from jobbridge.app.dead.purge import purge as purge_all
    from jobbridge.store.workers.dead import clock

    age = _age_of(older_than)
    app = load_app(app_name)
    if not yes:
        click.confirm(f"Delete what was given up more than {older_than} ago?", abort=True, err=True)
    where = _where(**filters)
    details = {**_told(where), "older_than": older_than}
    with on_record(app, "purge dead", by=by, tenant=where.tenant, details=details) as entry:
        number = purge_all(app, where, died_before=clock(app.database) - age)
        entry.details["purged"] = number
    tell(as_json, {"purged": number}, f"Deleted {number:,}.")


def _age_of(text: str) -> timedelta:
    from jobbridge.core.schedules.intervals import duration_of

    units = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
    short = text.strip()
    if short[:-1].isdigit() and short[-1:] in units:
        short = f"{short[:-1]} {units[short[-1]]}"
    return duration_of(short)


def _plain(letter: Letter) -> dict[str, Any]:
    fields = asdict(letter)
    key = fields.pop("key")
    return {"id": fields.pop("id"), "tenant": key["tenant"] if key else None, **fields}
