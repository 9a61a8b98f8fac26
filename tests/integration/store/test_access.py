"""Tokens: shown once, stored hashed, of use until they are revoked or their time is over; and what is on record."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from jobbridge.cli.root import run
from jobbridge.core.access import Principal, Role
from jobbridge.core.keys import TenantId
from jobbridge.errors import TokenRefused
from jobbridge.store.access.tokens import PREFIX, AccessStore
from jobbridge.store.database import Database

ACME, OTHER = TenantId("acme"), TenantId("other")


@pytest.fixture
def access(database_url: str) -> Iterator[AccessStore]:
    database = Database(database_url)
    yield AccessStore(database)
    database.close()


def test_a_token_stands_for_its_role_and_tenant(access: AccessStore) -> None:
    token, row = access.create("ada", Role.OPERATOR, tenant=ACME)

    found = access.find(token)

    assert found is not None
    assert found.principal == Principal(name="ada", role=Role.OPERATOR, tenant=ACME, token_id=row.token_id)
    assert access.find(token[:-1]) is None
    assert access.find("") is None


def test_the_database_does_not_hold_the_token(access: AccessStore, database_url: str) -> None:
    token, row = access.create("ada", Role.VIEWER)
    assert token.startswith(PREFIX)

    database = Database(database_url)
    with database.connection() as connection:
        [(stored,)] = connection.execute("SELECT job_tokens::text FROM job_tokens").fetchall()
    database.close()

    assert token not in stored
    assert token.removeprefix(PREFIX) not in stored
    assert row.hash.hex() not in repr(row)
    assert str(row.hash) not in repr(row)


def test_a_revoked_token_is_of_no_use_and_its_name_is_free(access: AccessStore) -> None:
    token, row = access.create("ada", Role.ADMIN)
    with pytest.raises(TokenRefused, match="'ada' already"):
        access.create("ada", Role.VIEWER)

    assert access.revoke("ada")

    assert access.find(token) is None
    assert access.get(row.token_id) is None
    assert not access.revoke("ada")
    access.create("ada", Role.VIEWER)


def test_a_token_whose_time_is_over_is_of_no_use(access: AccessStore) -> None:
    now = datetime.now(UTC)
    old, _ = access.create("old", Role.VIEWER, expires_at=now - timedelta(seconds=1))
    new, _ = access.create("new", Role.VIEWER, expires_at=now + timedelta(hours=1))

    assert access.find(old) is None
    assert access.find(new) is not None


def test_that_a_token_was_used_is_noted(access: AccessStore) -> None:
    token, row = access.create("ada", Role.VIEWER)
    assert row.used_at is None

    access.find(token)

    assert [row.used_at is not None for row in access.all()] == [True]


def test_actions_are_on_record_by_tenant(access: AccessStore) -> None:
    ada = Principal(name="ada\x00", role=Role.OPERATOR)
    access.note(ada, "cancel", tenant=ACME, subject="1", reason="wrong month", details={"jobs": 3})
    access.note(ada, "retry", tenant=OTHER, subject="2", outcome="refused")

    assert [action.action for action in access.actions()] == ["retry", "cancel"]
    [action] = access.actions(ACME)
    assert (action.actor, action.role, action.reason) == ("ada\ufffd", Role.OPERATOR, "wrong month")
    assert (action.subject, action.outcome, action.details) == ("1", "done", {"jobs": 3})


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (Role.VIEWER, {Role.VIEWER}),
        (Role.OPERATOR, {Role.VIEWER, Role.OPERATOR}),
        (Role.ADMIN, {Role.VIEWER, Role.OPERATOR, Role.ADMIN}),
    ],
)
def test_a_role_may_do_what_those_before_it_may(role: Role, may: set[Role]) -> None:
    assert {other for other in Role if role.includes(other)} == may


def test_tokens_are_made_listed_and_revoked_by_the_command(
    access: AccessStore,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)

    assert run(["tokens", "create", "ada", "--role", "operator", "--tenant", ACME, "--days", "7"]) == 0
    made = capsys.readouterr()
    token = made.out.strip()
    found = access.find(token)
    assert found is not None
    assert (found.role, found.tenant) == (Role.OPERATOR, ACME)
    assert "not shown again" in made.err

    assert run(["tokens", "list"]) == 0
    listed = capsys.readouterr().out
    assert "ada" in listed
    assert token not in listed
    assert run(["tokens", "list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["ada"]

    assert run(["tokens", "create", "ada"]) == 5
    assert "tokens revoke ada" in capsys.readouterr().err
    assert run(["tokens", "revoke", "ada"]) == 0
    assert access.find(token) is None
    assert run(["tokens", "revoke", "ada"]) == 5


@pytest.mark.parametrize(
    "asked",
    [["acme-support", "--tenant", ""], ["acme-support", "--tenant", " "], [""], ["x", "--days", "1e12"]],
    ids=["no tenant", "a blank tenant", "no name", "too long"],
)
def test_what_an_empty_variable_makes_of_a_command_is_refused(
    access: AccessStore,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked: list[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)

    assert run(["tokens", "create", *asked]) != 0

    assert capsys.readouterr().out == ""
    assert access.all() == []
