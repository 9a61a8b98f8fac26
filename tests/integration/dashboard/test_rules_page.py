"""The page of the rules across the fleet: how they stand, and what is set and removed there, by whom."""

from __future__ import annotations

from collections.abc import Iterator
from html import unescape

import pytest

from jobbridge import Celery
from jobbridge.core.access import Role
from jobbridge.settings import load_settings
from jobbridge.store.access.tokens import AccessStore
from jobbridge.store.rules.fleet import RuleStore
from tests.integration.dashboard.test_dead import ACME, client_of
from tests.parity.tasks import make_app

HTML = {"accept": "text/html"}
RULE = {"kind": "concurrency", "per": "queue", "target": "celery", "limit": "4"}


@pytest.fixture
def app(database_url: str) -> Iterator[Celery]:
    app = make_app(settings=load_settings({"DATABASE_URL": database_url}), include=["tests.parity.tasks"])
    app.loader.import_default_modules()
    yield app
    app.close()


def test_a_rule_is_set_shown_and_removed_on_record(app: Celery) -> None:
    operator = client_of(app)
    page = unescape(operator.get("/rules", headers=HTML).text)
    assert "No rule holds jobs." in page

    told = {**RULE, "fair": "yes", "weights": "acme=3, zeta=1", "ageing": "60"}
    done = operator.post("/rules/set", data=told, follow_redirects=False)

    assert (done.status_code, done.headers["location"]) == (303, "/rules")
    [each] = RuleStore(app.database).all()
    assert (each.target, each.rule.allowed, each.rule.is_fair, each.weights) == (
        "celery", 4, True, {"acme": 3.0, "zeta": 1.0},
    )  # fmt: skip
    for _ in range(6):
        app.tasks["parity.add"].apply_async([1, 2], concurrency={"limit": 4, "per": "queue", "fair": True})
    page = unescape(operator.get("/rules", headers=HTML).text)
    assert "concurrency queue celery" in page
    assert "acme 3, zeta 1" in page
    assert '<td class="number">4</td><td class="number">2</td>' in page  # let through, and held

    removed = {name: RULE[name] for name in ("kind", "per", "target")}
    assert operator.post("/rules/remove", data=removed, follow_redirects=False).status_code == 303
    assert operator.post("/rules/remove", data=removed, follow_redirects=False).status_code == 303
    assert RuleStore(app.database).all() == []
    told_of = [(row.action, row.outcome) for row in reversed(AccessStore(app.database).actions())]
    assert [each for each in told_of if "rule" in each[0]] == [
        ("set rule", "done"), ("remove rule", "done"), ("remove rule", "was not set"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "speed"}, "no kind 'speed'"),
        ({"per": "key"}, "No rule is per 'key'"),
        ({"target": " "}, "no task or queue"),
        ({"limit": "many"}, "concurrency is 'many'"),
        ({"weights": "acme=much", "fair": "yes"}, "the weight 'acme=much'"),
        ({"weights": "acme=3"}, "The weights are"),
        ({"ageing": "-1"}, "ageing is '-1'"),
    ],
)
def test_what_is_no_rule_is_refused_and_told(app: Celery, change: dict[str, str], why: str) -> None:
    refused = client_of(app).post("/rules/set", data=RULE | change, headers=HTML)

    assert refused.status_code == 400
    assert why in unescape(refused.text)
    assert RuleStore(app.database).all() == []
    assert ("set rule", "refused") in [
        (row.action, row.outcome) for row in AccessStore(app.database).actions()
    ]


def test_only_who_operates_the_installation_sets_rules(app: Celery) -> None:
    viewer, bound = client_of(app, Role.VIEWER), client_of(app, Role.OPERATOR, ACME)

    page = viewer.get("/rules", headers=HTML)
    assert page.status_code == 200
    assert "Set a rule" not in page.text
    assert viewer.post("/rules/set", data=RULE).status_code == 403
    assert bound.get("/rules", headers=HTML).status_code == 404  # as what is not there
    assert bound.post("/rules/set", data=RULE).status_code == 404
    assert RuleStore(app.database).all() == []
