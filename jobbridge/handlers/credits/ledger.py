"""What the ledger says of credits, and what is kept beside it. Pure.

The ledger is right: an account's balance is the sum of its entries, a credit's amount is that of its issue, and what
is left of a credit is the sum of its entries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from jobbridge.handlers.money import ZERO


class Kind(StrEnum):
    BALANCE = "balance"  # the account's balance is not the sum of the ledger
    TRACKING_MISSING = "tracking_missing"  # the ledger knows a credit that is not tracked
    TRACKING_UNFOUNDED = "tracking_unfounded"  # a credit is tracked that was never issued
    AMOUNT = "amount"  # a credit's amount is not the one that was issued
    REMAINING = "remaining"  # what is left of a credit is not what the ledger leaves


@dataclass(frozen=True, kw_only=True, slots=True)
class Credit:
    """One credit as both sides have it.

    Attributes:
        issued: By the ledger; None: it has no entry of an issue.
        left: By the ledger; None: it has no entry at all.
        amount: As it is tracked; None: it is not.
        remaining: As it is tracked.
    """

    credit_id: str
    issued: Decimal | None
    left: Decimal | None
    amount: Decimal | None
    remaining: Decimal | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """One client's credits; `balance` is None if there is no account."""

    client_id: str
    balance: Decimal | None
    credits: Sequence[Credit]


@dataclass(frozen=True, kw_only=True, slots=True)
class Discrepancy:
    """What should be, by the ledger, and what is.

    Attributes:
        subject_id: The client of a balance, else the credit.
    """

    kind: Kind
    subject_id: str
    expected: Decimal
    actual: Decimal

    @property
    def difference(self) -> Decimal:
        return self.actual - self.expected


def discrepancies_of(account: Account) -> list[Discrepancy]:
    """Give all that does not agree, the balance first, then by credit."""
    expected = sum((credit.left or ZERO for credit in account.credits), ZERO)
    balance = account.balance or ZERO
    found = [_differs(Kind.BALANCE, account.client_id, expected, balance)] if balance != expected else []
    for credit in account.credits:
        found.extend(_of_credit(credit))
    return found


def _of_credit(credit: Credit) -> Iterator[Discrepancy]:
    subject = credit.credit_id
    if credit.amount is None or credit.remaining is None:
        # Used without ever having been issued: then what was used is what cannot be explained.
        expected = credit.issued if credit.issued is not None else credit.left or ZERO
        yield _differs(Kind.TRACKING_MISSING, subject, expected, ZERO)
    elif credit.issued is None:
        yield _differs(Kind.TRACKING_UNFOUNDED, subject, ZERO, credit.amount)
    else:
        if credit.amount != credit.issued:
            yield _differs(Kind.AMOUNT, subject, credit.issued, credit.amount)
        if credit.remaining != credit.left:
            yield _differs(Kind.REMAINING, subject, credit.left or ZERO, credit.remaining)


def _differs(kind: Kind, subject_id: str, expected: Decimal, actual: Decimal) -> Discrepancy:
    return Discrepancy(kind=kind, subject_id=subject_id, expected=expected, actual=actual)
