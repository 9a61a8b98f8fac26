"""Rules across the fleet: how they stand, and what is set at run time; set and removed."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from jobbridge.core.access import Role
from jobbridge.core.rules.limits import FleetRule, Per, RuleKind, concurrency_rules, rate_rules
from jobbridge.dashboard.access.request_context import POST, RequestContext, Rule, storable
from jobbridge.errors import JobBridgeError, UnsupportedOption
from jobbridge.store.rules.fleet import RuleStore

#: Rules that are shown; one per key and tenant may be very many.
SHOWN = 500
_KINDS = tuple(kind.value for kind in RuleKind)
_PERS = (Per.TASK.value, Per.TENANT.value, Per.QUEUE.value)
_NAME_LIMIT = 255


def rules(context: RequestContext) -> Response:
    """The rules that hold jobs, or held some lately, and those that are set."""
    store = RuleStore(context.app.database)
    limits = store.limits(limit=SHOWN)
    return context.dashboard.page(
        context,
        "rules.html",
        limits=limits,
        is_cut=len(limits) == SHOWN,
        found=store.all(),
        kinds=_KINDS,
        pers=_PERS,
        may_act=context.principal.may(Role.OPERATOR),
    )


def set_rule(context: RequestContext) -> Response:
    """Set a rule: it goes before what the code declares, also for what waits already."""
    target = ""
    try:
        target = _target(context)
        done = RuleStore(context.app.database).set(_rule(context), target, _weights(context))
    except JobBridgeError as error:
        context.note("set rule", outcome="refused", subject=target[:200], reason=str(error))
        raise HTTPException(400, f"{error} {error.hint}".strip()) from error
    context.note("set rule", outcome="done", subject=done.name[:200])
    return RedirectResponse(context.path("rules"), status_code=303)


def remove_rule(context: RequestContext) -> Response:
    """Take back what was set: what the code declares counts again."""
    target = ""
    try:
        target, kind, per = _target(context), _kind(context), _per(context)
    except JobBridgeError as error:
        context.note("remove rule", outcome="refused", subject=target[:200], reason=str(error))
        raise HTTPException(400, f"{error} {error.hint}".strip()) from error
    removed = RuleStore(context.app.database).remove(kind, per, target)
    context.note("remove rule", outcome="done" if removed else "was not set", subject=target[:200])
    return RedirectResponse(context.path("rules"), status_code=303)


def _rule(context: RequestContext) -> FleetRule:
    form, kind = context.form, _kind(context)
    limit, ageing = form.get("limit", "").strip(), form.get("ageing", "").strip()
    number: object = int(limit) if limit.isascii() and limit.isdecimal() else limit
    told = {"limit": number, "per": _per(context).value, "fair": form.get("fair") == "yes"}
    if ageing:
        told["ageing"] = _number(ageing, "ageing")
    (rule,) = (concurrency_rules if kind is RuleKind.CONCURRENCY else rate_rules)(told)
    return rule


def _kind(context: RequestContext) -> RuleKind:
    told = context.form.get("kind", "")
    if told not in _KINDS:
        raise UnsupportedOption(f"There is no kind {told[:40]!r}.", hint=f"Use one of: {', '.join(_KINDS)}.")
    return RuleKind(told)


def _per(context: RequestContext) -> Per:
    told = context.form.get("per", "")
    if told not in _PERS:
        raise UnsupportedOption(f"No rule is per {told[:40]!r}.", hint=f"Use one of: {', '.join(_PERS)}.")
    return Per(told)


def _target(context: RequestContext) -> str:
    told = storable(context.form.get("target", "")).strip()
    if not 1 <= len(told) <= _NAME_LIMIT:
        raise UnsupportedOption(
            f"There is no task or queue {told[:40]!r}.", hint=f"Give a name of 1 to {_NAME_LIMIT} characters."
        )
    return told


def _weights(context: RequestContext) -> dict[str, float]:
    """Read `acme=3, other=1`."""
    weights: dict[str, float] = {}
    for each in storable(context.form.get("weights", "")).replace(",", " ").split():
        tenant, _, number = each.rpartition("=")
        weights[tenant] = _number(number, f"the weight {each[:40]!r}")
    return weights


def _number(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        raise UnsupportedOption(f"{what} is {text[:40]!r}.", hint="Give a number above 0.")
    return number


RULES = (
    Rule("/rules", "rules", rules, Role.VIEWER, is_global=True),
    Rule("/rules/set", "set_rule", set_rule, Role.OPERATOR, methods=POST, is_global=True),
    Rule("/rules/remove", "remove_rule", remove_rule, Role.OPERATOR, methods=POST, is_global=True),
)
