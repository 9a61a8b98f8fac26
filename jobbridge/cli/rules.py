"""`jobbridge rules list|set|remove`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from jobbridge.cli.audit import by_option, on_record
from jobbridge.cli.common import (
    app_option,
    app_option_of_group,
    json_option,
    load_app,
    tell,
    tell_table,
    write_json,
)

if TYPE_CHECKING:
    from jobbridge.core.rules.limits import FleetRule
    from jobbridge.store.rules.fleet import Limit, SetRule

_KINDS = click.Choice(["concurrency", "rate_limit"])
_per = click.option(
    "--per", type=click.Choice(["task", "tenant", "queue"]), default="task", help="What it counts together."
)


@click.group("rules")
@app_option_of_group
def command() -> None:
    """List, set and remove rules across the fleet: how many jobs run at once, or begin in a time."""


@command.command("list")
@app_option
@json_option
def list_rules(app_name: str | None, as_json: bool) -> None:
    """List what is set at run time, and how the rules stand that hold jobs, or held some lately."""
    from jobbridge.store.rules.fleet import RuleStore

    store = RuleStore(load_app(app_name).database)
    found, limits = store.all(), store.limits()
    if as_json:
        write_json({"set": [_told(each) for each in found], "limits": [asdict(each) for each in limits]})
        return
    known = {each.rule for each in limits}
    rows = [
        (
            each.rule,
            _allowed(each),
            str(each.running),
            _many(each.waiting),
            "at run time" if each.is_set else "",
        )
        for each in limits
    ]
    rows += [
        (each.name, _allowed(each.rule), "", "", "at run time") for each in found if each.name not in known
    ]
    tell_table(rows, "rule", "allowed", "running", "waiting", "set", empty="No rule holds jobs.")


@command.command("set")
@click.argument("kind", type=_KINDS)
@click.argument("target")
@click.argument("limit")
@_per
@click.option("--fair", is_flag=True, help="Tenants that wait take turns.")
@click.option("--weight", "weights", multiple=True, metavar="TENANT=N", help="Of its turns; 1 by default.")
@click.option(
    "--ageing", type=float, metavar="SECONDS", help="After which a job counts as one priority more."
)
@by_option
@app_option
@json_option
def set_rule(
    kind: str,
    target: str,
    limit: str,
    per: str,
    fair: bool,
    weights: tuple[str, ...],
    ageing: float | None,
    by: str | None,
    app_name: str | None,
    as_json: bool,
) -> None:
    """Allow LIMIT jobs of the task TARGET (with --per queue: of the queue) at once, or in a time.

    It goes before what the code declares, for what waits already too; processes that send hear of it within 5 s.
    """
    from jobbridge.core.rules.limits import concurrency_rules, rate_rules
    from jobbridge.store.rules.fleet import RuleStore

    read = concurrency_rules if kind == "concurrency" else rate_rules
    number: object = int(limit) if limit.isdecimal() else limit
    told = {"limit": number, "per": per, "fair": fair, "ageing": ageing}
    (rule,) = read({name: value for name, value in told.items() if value is not None})
    app, given = load_app(app_name), _weights(weights)
    asked = {"kind": kind, "per": per, "limit": limit, "fair": fair, "weights": given}
    with on_record(app, "set rule", by=by, subject=target, details=asked):
        done = RuleStore(app.database).set(rule, target, given)
    tell(as_json, _told(done), f"The rule {done.name!r} allows {_allowed(rule)}.")


@command.command("remove")
@click.argument("kind", type=_KINDS)
@click.argument("target")
@_per
@by_option
@app_option
@json_option
def remove(kind: str, target: str, per: str, by: str | None, app_name: str | None, as_json: bool) -> None:
    """Take back what was set for TARGET: what the code declares counts again, with the next job that is sent."""
    from jobbridge.core.rules.limits import Per, RuleKind
    from jobbridge.store.rules.fleet import RuleStore

    app = load_app(app_name)
    with on_record(app, "remove rule", by=by, subject=target, details={"kind": kind, "per": per}) as entry:
        was_set = RuleStore(app.database).remove(RuleKind(kind), Per(per), target)
        entry.outcome = "done" if was_set else "was not set"
    text = f"The {kind} per {per} of {target} is not set any more." if was_set else "No such rule was set."
    tell(as_json, {"removed": was_set}, text)


def _weights(given: tuple[str, ...]) -> dict[str, float]:
    weights = {}
    for each in given:
        tenant, _, number = each.rpartition("=")
        try:
            weights[tenant] = float(number)
        except ValueError:
            raise click.BadParameter(f"{each!r} is no TENANT=N.", param_hint="--weight") from None
    return weights


def _told(each: SetRule) -> dict[str, object]:
    rule = each.rule
    return {
        "name": each.name,
        "kind": rule.kind.value,
        "per": rule.per.value,
        "target": each.target,
        "allowed": rule.allowed,
        "period_seconds": None if rule.period is None else rule.period.total_seconds(),
        "fair": rule.is_fair,
        "weights": dict(each.weights),
        "ageing_seconds": None if rule.ageing is None else rule.ageing.total_seconds(),
        "set_at": each.set_at,
    }


def _allowed(each: FleetRule | Limit) -> str:
    if each.period is None:
        return f"{each.allowed} at once"
    return f"{each.allowed} in {_time(each.period)}"


def _time(period: timedelta) -> str:
    return f"{period.total_seconds():g} s"


def _many(number: int) -> str:
    return "10,000+" if number >= 10_000 else f"{number:,}"
