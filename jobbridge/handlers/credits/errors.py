"""What the books do not allow with credits. See `jobbridge.handlers.errors`.

Refusal
├── NoCreditAccount        the client has credits and no account
└── BalanceBelowCredit     the account holds less than the credit has left
"""

from __future__ import annotations

from decimal import Decimal
from typing import Self

from jobbridge.handlers.errors import Refusal


class NoCreditAccount(Refusal):
    """The client has credits and no account."""

    hint = "Run credit-reconciliation for the tenant, and correct what it reports."

    @classmethod
    def about(cls, client_id: str, credit_id: str) -> Self:
        return cls(f"Client {client_id!r} has the credit {credit_id!r}, and no row in psa.credit_accounts.")


class BalanceBelowCredit(Refusal):
    """The account holds less than the credit has left: to take it would make the balance negative."""

    hint = "Run credit-reconciliation for the tenant, and correct what it reports."

    @classmethod
    def about(cls, client_id: str, balance: Decimal, credit_id: str, remaining: Decimal) -> Self:
        return cls(
            f"The balance of client {client_id!r} is {balance}, which is less than the {remaining} that are left of "
            f"its credit {credit_id!r}."
        )
