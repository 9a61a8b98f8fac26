"""The rules of credits: what differs from the ledger, and when a notice is due."""

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from jobbridge import JobBridgeError
from jobbridge.bootstrap import make_app
from jobbridge.handlers.batches import Batch
from jobbridge.handlers.credits.ledger import Account, Credit, Discrepancy, Kind, discrepancies_of
from jobbridge.handlers.credits.notices import ExpiringCredit, due_notice
from jobbridge.handlers.errors import PartlyFailed, PartlyRefused, Refusal
from jobbridge.handlers.mailing.errors import MailDeferred, MailUncertain
from jobbridge.runners.handlers import register_all_job_handlers
from jobbridge.settings import load_settings

CENTS = st.decimals(Decimal("0.01"), Decimal("9999.99"), places=2)


@st.composite
def credits(draw: st.DrawFn) -> Credit:
    issued = draw(CENTS)
    left = draw(st.decimals(Decimal("0.00"), issued, places=2))
    name = draw(st.uuids().map(str))
    return Credit(credit_id=name, issued=issued, left=left, amount=issued, remaining=left)


@st.composite
def accounts(draw: st.DrawFn, least: int = 0) -> Account:
    known = draw(st.lists(credits(), min_size=least, max_size=5))
    balance = sum((credit.left or Decimal(0) for credit in known), Decimal("0.00"))
    return Account(client_id="acme", balance=balance, credits=known)


def changed(account: Account, **values: object) -> Account:
    first = account.credits[0]
    fields = ("credit_id", "issued", "left", "amount", "remaining")
    credit = Credit(**{name: getattr(first, name) for name in fields} | values)  # type: ignore[arg-type]
    return Account(
        client_id=account.client_id, balance=account.balance, credits=[credit, *account.credits[1:]]
    )


def found(account: Account) -> list[Discrepancy]:
    return discrepancies_of(account)


@given(accounts())
def test_books_that_agree_have_no_discrepancy(account: Account) -> None:
    assert found(account) == []


@given(accounts(), CENTS)
def test_a_wrong_balance_is_found_with_its_difference(account: Account, off: Decimal) -> None:
    assert account.balance is not None
    wrong = Account(client_id="acme", balance=account.balance + off, credits=account.credits)

    (only,) = found(wrong)

    assert (only.kind, only.subject_id, only.difference) == (Kind.BALANCE, "acme", off)
    assert only.expected == account.balance


@given(accounts(least=1), CENTS)
def test_a_wrong_remaining_amount_is_found(account: Account, remaining: Decimal) -> None:
    credit = account.credits[0]
    assume(remaining != credit.left)

    (only,) = found(changed(account, remaining=remaining))

    assert (only.kind, only.expected, only.actual) == (Kind.REMAINING, credit.left, remaining)


@given(accounts(least=1))
def test_a_credit_that_is_not_tracked_is_found(account: Account) -> None:
    credit = account.credits[0]

    (only,) = found(changed(account, amount=None, remaining=None))

    assert (only.kind, only.subject_id) == (Kind.TRACKING_MISSING, credit.credit_id)
    assert (only.expected, only.actual) == (credit.issued, 0)


@given(accounts(least=1), CENTS)
def test_a_wrong_amount_is_found(account: Account, amount: Decimal) -> None:
    assume(amount != account.credits[0].issued)

    (only,) = found(changed(account, amount=amount))

    assert (only.kind, only.actual) == (Kind.AMOUNT, amount)


def test_a_credit_that_was_never_issued_is_found() -> None:
    tracked = Credit(
        credit_id="c-1", issued=None, left=None, amount=Decimal("35.00"), remaining=Decimal("35.00")
    )

    (only,) = found(Account(client_id="acme", balance=Decimal("0.00"), credits=[tracked]))

    assert (only.kind, only.expected, only.actual) == (Kind.TRACKING_UNFOUNDED, 0, Decimal("35.00"))


def test_credit_that_was_used_and_never_issued_is_found() -> None:
    used = Credit(credit_id="c-1", issued=None, left=Decimal("-5.00"), amount=None, remaining=None)

    (only,) = found(Account(client_id="acme", balance=Decimal("-5.00"), credits=[used]))

    assert (only.kind, only.expected) == (Kind.TRACKING_MISSING, Decimal("-5.00"))


def test_a_missing_account_counts_as_nothing() -> None:
    assert found(Account(client_id="acme", balance=None, credits=[])) == []


# -- notices

EXPIRY = date(2026, 11, 30)
THRESHOLDS = (30, 7, 1)


def credit(issued_on: date = date(2026, 1, 1)) -> ExpiringCredit:
    return ExpiringCredit(
        credit_id="c-1",
        client_id="acme",
        remaining=Decimal("10.00"),
        issued_on=issued_on,
        expires_on=EXPIRY,
    )


@pytest.mark.parametrize(
    ("days_left", "known", "due", "covers"),
    [
        (31, {}, None, ()),
        (30, {}, 30, ()),
        (29, {30: "sent"}, None, ()),
        (29, {}, 30, ()),  # yesterday was missed
        (7, {30: "sent"}, 7, ()),
        (5, {}, 7, (30,)),  # a month was missed: one mail
        (5, {30: "failed"}, 7, (30,)),
        (1, {30: "sent", 7: "failed"}, 1, (7,)),
        (1, {30: "sent", 7: "uncertain"}, 1, ()),
        (1, {1: "uncertain"}, None, ()),
        (1, {1: "sending"}, None, ()),
        (0, {}, 1, (7, 30)),  # its last day
        (-1, {}, None, ()),
    ],
)
def test_when_a_notice_is_due(
    days_left: int, known: dict[int, str], due: int | None, covers: tuple[int, ...]
) -> None:
    notice = due_notice(credit(), THRESHOLDS, known, EXPIRY - timedelta(days=days_left))

    assert (notice.days_before if notice else None, notice.covers if notice else ()) == (due, covers)


def test_a_threshold_before_the_credit_was_issued_was_not_missed() -> None:
    issued = EXPIRY - timedelta(days=20)

    assert due_notice(credit(issued), THRESHOLDS, {}, issued) is None
    notice = due_notice(credit(issued), THRESHOLDS, {}, EXPIRY - timedelta(days=7))
    assert notice is not None
    assert (notice.days_before, notice.covers) == (7, ())


@given(
    st.lists(st.integers(0, 60), max_size=6),
    st.sets(st.integers(0, 90)),
    st.integers(0, 90),
)
def test_whatever_days_are_missed_each_threshold_is_settled_once_and_none_waits(
    thresholds: list[int], days_that_run: set[int], issued_days_before: int
) -> None:
    issued = EXPIRY - timedelta(days=issued_days_before)
    known: dict[int, str] = {}
    for days_left in sorted(days_that_run | {0}, reverse=True):
        today = EXPIRY - timedelta(days=days_left)
        if today < issued:
            continue
        notice = due_notice(credit(issued), thresholds, known, today)
        if notice is not None:
            assert not {notice.days_before, *notice.covers} & set(known)
            known |= {notice.days_before: "sent"} | dict.fromkeys(notice.covers, "covered")
        assert due_notice(credit(issued), thresholds, known, today) is None, "once a day"

    assert set(known) == {days for days in thresholds if days <= issued_days_before}


# -- many at once


def failed(**failures: Exception) -> Batch:
    return Batch(results={"c-0": None}, failures=failures)


@pytest.mark.parametrize(
    ("failures", "kind"),
    [
        ({"a": Refusal("no")}, PartlyRefused),
        ({"a": Refusal("no"), "b": MailUncertain("who knows")}, PartlyRefused),
        ({"a": Refusal("no"), "b": MailDeferred("later")}, PartlyFailed),
        ({"a": KeyError("bug")}, PartlyFailed),
    ],
)
def test_a_batch_is_tried_again_if_that_may_help(
    failures: dict[str, Exception], kind: type[JobBridgeError]
) -> None:
    with pytest.raises(PartlyFailed) as caught:
        failed(**failures).raise_failures("things were not done")

    assert type(caught.value) is kind
    assert f"{len(failures)} of {len(failures) + 1} things were not done. a: " in str(caught.value)


def test_an_error_of_a_thousand_failures_is_short() -> None:
    with pytest.raises(PartlyRefused) as caught:
        failed(**{f"c-{number}": Refusal("no") for number in range(1000)}).raise_failures("were not")

    assert len(str(caught.value)) < 500
    assert "and 980 more" in str(caught.value)


def test_keys_of_ai_sessions_are_the_enterprise_editions() -> None:
    for edition, is_there in (("community", False), ("enterprise", True)):
        app = make_app(load_settings({"EDITION": edition, "DATABASE_URL": "postgresql://127.0.0.1:1/none"}))
        names = register_all_job_handlers(app)
        assert ("cleanup-ai-session-keys" in names) is is_there
        assert {
            "expired-credits", "expiring-credits-notification", "credit-reconciliation",
            "reconcile-bucket-usage", "cleanup-temporary-workflow-forms",
        } <= set(names)  # fmt: skip
        app.close()
