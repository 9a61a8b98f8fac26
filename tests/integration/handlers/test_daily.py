"""The daily handlers on real tables: what they do, once, wherever they die, for one tenant at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import pytest

from jobbridge.errors import JobCancelled
from jobbridge.handlers.batches import Context
from jobbridge.handlers.buckets.reconciling import reconcile_buckets, tenants_with_buckets
from jobbridge.handlers.cleanup.forms import delete_forms
from jobbridge.handlers.cleanup.keys import deactivate_keys
from jobbridge.handlers.credits.expiring import expire_credits, tenants_with_credits_to_expire
from jobbridge.handlers.credits.reconciling import reconcile_credits, tenants_with_credits
from jobbridge.handlers.dataset import MONTH, NOON, TODAY, import_dataset
from jobbridge.handlers.errors import PartlyFailed, PartlyRefused, UnknownProvider, UnknownTimeZone
from jobbridge.handlers.providers import day_of, today_of
from tests.books import Books
from tests.dying import Died, die_at_each_step
from tests.handler_runs import Jobs

#: Whose books there are: see conftest.py.
TENANTS = ("t1", "t2")

DAY_OLD = timedelta(hours=24)

EXPIRED_ON_THE_LAST_OF_OCTOBER = {"cr-northwind-1": Decimal("180.00"), "cr-lakeside-1": Decimal("120.00")}

#: What the six jobs leave, without what differs from run to run.
STATE = {
    "credits": "SELECT credit_id, remaining FROM psa.credit_tracking WHERE tenant = %s ORDER BY 1",
    "balances": "SELECT client_id, balance FROM psa.credit_accounts WHERE tenant = %s ORDER BY 1",
    "ledger": "SELECT credit_id, kind, amount, occurred_on, job_id IS NULL FROM psa.credit_transactions"
    " WHERE tenant = %s ORDER BY 1, 2, 3, 4",
    "reports": "SELECT kind, subject_id, expected, actual, difference, status, opened_on"
    " FROM psa.credit_reconciliation_reports WHERE tenant = %s ORDER BY 1, 2, 6",
    "buckets": "SELECT * FROM psa.bucket_usage WHERE tenant = %s ORDER BY contract_line_id, period_start",
    "forms": "SELECT form_id FROM psa.workflow_forms WHERE tenant = %s ORDER BY 1",
    "definitions": "SELECT definition_id FROM psa.workflow_form_definitions WHERE tenant = %s ORDER BY 1",
    "keys": "SELECT key_id, is_active, deactivated_at, deactivation_reason FROM psa.ai_session_keys"
    " WHERE tenant = %s ORDER BY 1",
    "audit": "SELECT action, subject_id, detail FROM psa.audit_log WHERE tenant = %s ORDER BY 1, 2",
}

#: Each handler as its task calls it, on the day of the data set.
RUNS: dict[str, Callable[[Context], dict[str, Any]]] = {
    "expired-credits": lambda ctx: expire_credits(ctx, TODAY),
    "credit-reconciliation": lambda ctx: reconcile_credits(ctx, TODAY),
    "reconcile-bucket-usage": lambda ctx: reconcile_buckets(ctx, TODAY),
    "cleanup-temporary-workflow-forms": lambda ctx: delete_forms(ctx, DAY_OLD, NOON),
    "cleanup-ai-session-keys": lambda ctx: deactivate_keys(ctx, NOON),
}
EACH = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())


class Office:
    """Books of two tenants, and jobs for them."""

    def __init__(self, books: Books, jobs: Jobs) -> None:
        self.books, self.jobs = books, jobs

    def state(self, tenant: str = "t1", *parts: str) -> dict[str, list[Any]]:
        found = {
            part: self.jobs.table(STATE[part], tenant) if tenant else [] for part in parts or STATE.keys()
        }
        return {
            part: [tuple(value for value in row if value != tenant) for row in rows]
            for part, rows in found.items()
        }

    def one(self, statement: str, *values: object) -> Any:
        return self.books.value(statement, *values)


@pytest.fixture
def office(books: Books) -> Iterator[Office]:
    jobs = Jobs(books.url)
    yield Office(books, jobs)
    jobs.database.close()


def refuse(office: Office, event: str, table: str, condition: str) -> None:
    """Make the database refuse to change one row, as a trigger or constraint of an installation may."""
    office.books.run(
        f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'this row is bad'; END $$;
        CREATE TRIGGER refuse BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refuse()
        """
    )


# -- all of them


@EACH
def test_a_second_run_changes_nothing(office: Office, run: Callable[[Context], Any]) -> None:
    run(office.jobs.attempt("t1"))
    before = office.state()

    run(office.jobs.attempt("t1"))

    assert office.state() == before


@EACH
def test_another_tenants_books_stay_as_they_are(office: Office, run: Callable[[Context], Any]) -> None:
    ours, theirs = office.state("t1"), office.state("t2")
    assert ours == theirs

    run(office.jobs.attempt("t1"))

    assert office.state("t2") == theirs
    assert office.state("t1") != ours


@EACH
def test_wherever_it_dies_the_next_attempt_ends_as_if_nothing_had_happened(
    office: Office, run: Callable[[Context], Any]
) -> None:
    undisturbed = run(office.jobs.attempt("t1"))
    expected = office.state("t1")

    def live_and_try_again(lives: int) -> None:
        tenant = f"tenant-{lives}"
        with office.books.transaction() as connection:
            import_dataset(connection, tenant)
        first = office.jobs.attempt(tenant, lives=lives)
        try:
            run(first)
        except Died:
            result = run(office.jobs.attempt(tenant, first.job_id, number=2))
            state = office.state(tenant)
            assert _anonymous(state, tenant) == _anonymous(expected, "t1")
            assert result == undisturbed
            raise

    assert die_at_each_step(live_and_try_again) >= 7


def _anonymous(state: dict[str, list[Any]], tenant: str) -> str:
    return repr(state).replace(repr(tenant), "tenant")


@EACH
def test_a_cancelled_job_stops_and_what_it_did_stays(office: Office, run: Callable[[Context], Any]) -> None:
    attempt = office.jobs.attempt("t1")
    attempt.cancelled_after = 0
    before = office.state()

    with pytest.raises(JobCancelled):
        run(attempt)

    assert office.state() == before


@EACH
def test_several_jobs_at_once_do_what_one_does(office: Office, run: Callable[[Context], Any]) -> None:
    run(office.jobs.attempt("t1"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, [office.jobs.attempt("t2") for _ in range(4)]))

    assert _anonymous(office.state("t2"), "t2") == _anonymous(office.state("t1"), "t1")


# -- expired-credits


def remaining(office: Office, tenant: str = "t1") -> dict[str, Decimal]:
    return dict(office.state(tenant, "credits")["credits"])


def test_what_is_left_of_expired_credits_is_written_off(office: Office) -> None:
    attempt = office.jobs.attempt("t1")

    result = expire_credits(attempt, TODAY)

    assert result == {"as_of": "2026-10-31", "expired": 2, "amount": "300.00"}
    left = remaining(office)
    assert [left[credit_id] for credit_id in EXPIRED_ON_THE_LAST_OF_OCTOBER] == [0, 0]
    assert left["cr-oakfield-1"] == Decimal("400.00"), "it can be used on its last day"
    balances = dict(office.state("t1", "balances")["balances"])
    assert (balances["northwind"], balances["lakeside"]) == (Decimal("250.00"), Decimal("75.50"))
    entries = "SELECT credit_id, amount FROM psa.credit_transactions WHERE kind = 'expired' AND job_id = %s"
    assert dict(office.jobs.table(entries, attempt.job_id)) == {
        credit_id: -amount for credit_id, amount in EXPIRED_ON_THE_LAST_OF_OCTOBER.items()
    }
    audit = "SELECT subject_id, detail ->> 'amount' FROM psa.audit_log WHERE action = 'credit.expired'"
    assert dict(office.jobs.table(audit)) == {"cr-northwind-1": "180.00", "cr-lakeside-1": "120.00"}


def test_one_bad_credit_does_not_stop_the_rest_and_the_job_fails_and_names_it(office: Office) -> None:
    refuse(office, "UPDATE", "psa.credit_tracking", "OLD.credit_id = 'cr-northwind-1'")
    first = office.jobs.attempt("t1")

    with pytest.raises(
        PartlyFailed, match=r"1 of 2 credits were not expired\. cr-northwind-1: .*this row is bad"
    ):
        expire_credits(first, TODAY)

    left = remaining(office)
    assert (left["cr-northwind-1"], left["cr-lakeside-1"]) == (Decimal("180.00"), 0)
    assert office.one("SELECT count(*) FROM psa.credit_transactions WHERE kind = 'expired'") == 1, (
        "no half of it"
    )
    office.books.run("DROP TRIGGER refuse ON psa.credit_tracking")
    assert expire_credits(office.jobs.attempt("t1", first.job_id, number=2), TODAY)["amount"] == "300.00"


def test_an_expiry_that_would_make_a_balance_negative_is_refused(office: Office) -> None:
    office.books.run(
        "UPDATE psa.credit_accounts SET balance = 100 WHERE tenant = 't1' AND client_id = 'northwind'"
    )
    office.books.run("DELETE FROM psa.credit_accounts WHERE tenant = 't1' AND client_id = 'lakeside'")
    office.books.run(
        "UPDATE psa.credit_tracking SET expires_on = '2026-10-30' WHERE credit_id = 'cr-soehne-1'"
    )

    with pytest.raises(PartlyRefused, match=r"2 of 3 credits were not expired") as caught:
        expire_credits(office.jobs.attempt("t1"), TODAY)

    assert "balance of client 'northwind' is 100.00" in str(caught.value)
    assert "no row in psa.credit_accounts" in str(caught.value)
    left = remaining(office)
    assert (left["cr-northwind-1"], left["cr-lakeside-1"], left["cr-soehne-1"]) == (180, 120, 0)


def test_credit_that_is_given_back_after_its_expiry_expires_again(office: Office) -> None:
    expire_credits(office.jobs.attempt("t1"), TODAY)
    office.books.run(
        "UPDATE psa.credit_tracking SET remaining = 20 WHERE tenant = 't1' AND credit_id = 'cr-lakeside-1'"
    )
    office.books.run("UPDATE psa.credit_accounts SET balance = balance + 20 WHERE tenant = 't1'")

    assert expire_credits(office.jobs.attempt("t1"), TODAY)["amount"] == "20.00"


def test_the_day_is_the_tenants_own(office: Office) -> None:
    office.books.run("UPDATE psa.providers SET timezone = 'Pacific/Kiritimati' WHERE tenant = 't1'")  # UTC+14
    office.books.run("UPDATE psa.providers SET timezone = 'Pacific/Niue' WHERE tenant = 't2'")  # UTC-11

    days = [day_of(office.jobs.database.transaction, tenant, None) for tenant in ("t1", "t2")]

    assert days[0] > days[1]
    assert day_of(office.jobs.database.transaction, "t1", TODAY) == TODAY


def test_a_tenant_without_a_day_is_refused(office: Office) -> None:
    office.books.run("UPDATE psa.providers SET timezone = 'Mars/Olympus' WHERE tenant = 't1'")

    with office.books.transaction() as connection, pytest.raises(UnknownTimeZone, match="Mars/Olympus"):
        today_of(connection, "t1")
    with office.books.transaction() as connection, pytest.raises(UnknownProvider, match="nobody"):
        today_of(connection, "nobody")
    with pytest.raises(PartlyRefused, match="Mars/Olympus"):
        reconcile_buckets(office.jobs.attempt("t1"), TODAY)


# -- credit-reconciliation


def reports(office: Office, status: str = "open") -> dict[tuple[str, str], tuple[Decimal, Decimal, Decimal]]:
    rows = office.state("t1", "reports")["reports"]
    return {(row[0], row[1]): row[2:5] for row in rows if row[5] == status}


def money(*amounts: str) -> tuple[Decimal, ...]:
    return tuple(map(Decimal, amounts))


def test_each_planted_discrepancy_is_reported_with_both_figures(office: Office) -> None:
    result = reconcile_credits(office.jobs.attempt("t1"), TODAY)

    assert reports(office) == {
        ("balance", "quayside"): money("50.00", "40.00", "-10.00"),
        ("remaining", "cr-foyle-1"): money("100.00", "110.00", "10.00"),
        ("amount", "cr-ballymore-1"): money("200.00", "220.00", "20.00"),
        ("tracking_missing", "cr-tara-1"): money("80.00", "0.00", "-80.00"),
        ("tracking_unfounded", "cr-brigid-2"): money("0.00", "35.00", "35.00"),
    }
    assert result == {
        "as_of": "2026-10-31", "clients": 10, "discrepancies": 5, "opened": 5, "resolved": 0,
        "by_kind": {"amount": 1, "balance": 1, "remaining": 1, "tracking_missing": 1, "tracking_unfounded": 1},
    }  # fmt: skip


def test_an_open_report_follows_the_figures_and_is_not_opened_twice(office: Office) -> None:
    reconcile_credits(office.jobs.attempt("t1"), TODAY)
    office.books.run(
        "UPDATE psa.credit_accounts SET balance = 45 WHERE tenant = 't1' AND client_id = 'quayside'"
    )

    result = reconcile_credits(office.jobs.attempt("t1"), TODAY + timedelta(days=1))

    assert (result["discrepancies"], result["opened"]) == (5, 0)
    assert reports(office)["balance", "quayside"] == money("50.00", "45.00", "-5.00")


def test_a_report_is_resolved_when_its_discrepancy_is_gone_and_opened_anew_when_it_is_back(
    office: Office,
) -> None:
    set_balance = "UPDATE psa.credit_accounts SET balance = %s WHERE tenant = 't1' AND client_id = 'quayside'"
    reconcile_credits(office.jobs.attempt("t1"), TODAY)
    office.books.run(set_balance, 50)

    result = reconcile_credits(office.jobs.attempt("t1"), TODAY)

    assert (result["discrepancies"], result["resolved"]) == (4, 1)
    assert reports(office, "resolved") == {("balance", "quayside"): money("50.00", "40.00", "-10.00")}
    office.books.run(set_balance, 40)
    assert reconcile_credits(office.jobs.attempt("t1"), TODAY)["opened"] == 1


def test_what_expires_leaves_books_that_agree(office: Office) -> None:
    before = reconcile_credits(office.jobs.attempt("t1"), TODAY)
    expire_credits(office.jobs.attempt("t1"), TODAY)

    after = reconcile_credits(office.jobs.attempt("t1"), TODAY)

    assert (after["opened"], after["resolved"]) == (0, 0)
    assert after["by_kind"] == before["by_kind"]


# -- reconcile-bucket-usage


def usage(office: Office, line: str, start: date = MONTH.start) -> tuple[int, ...]:
    found = office.jobs.table(
        "SELECT included_minutes, rolled_over_minutes, used_minutes, overage_minutes FROM psa.bucket_usage"
        " WHERE tenant = 't1' AND contract_line_id = %s AND period_start = %s",
        line,
        start,
    )
    return found[0] if found else ()


def test_a_bucket_counts_after_hours_more_and_overlaps_once(office: Office) -> None:
    result = reconcile_buckets(office.jobs.attempt("t1"), TODAY)

    # An evening: 60 + 60 * 1.5, of the overlap 30 * 1.5 that are new, another technician's 30 + 30 * 1.5; a Saturday.
    assert usage(office, "foyle-bucket") == (480, 60, 120 + 150 + 45 + 75 + 45 + 135, 30)
    assert set(result["buckets"]) == {"lakeside-bucket", "brigid-bucket", "foyle-bucket"}


def test_a_bucket_says_what_the_invoice_says(office: Office) -> None:
    reconcile_buckets(office.jobs.attempt("t1"), TODAY)
    reconciled = {line: usage(office, line) for line in ("lakeside-bucket", "brigid-bucket")}

    for client_id in ("lakeside", "brigid"):
        office.books.bill(client_id)

    assert {line: usage(office, line) for line in reconciled} == reconciled
    assert usage(office, "lakeside-bucket")[3] > 0, "beyond what it includes"
    reconcile_buckets(office.jobs.attempt("t1"), TODAY)
    assert {line: usage(office, line) for line in reconciled} == reconciled, "billed time counts too"


def test_the_period_of_a_new_month_is_made_with_what_is_left_over(office: Office) -> None:
    reconcile_buckets(office.jobs.attempt("t1"), TODAY)
    included, rolled_over, used, _ = usage(office, "brigid-bucket")

    reconcile_buckets(office.jobs.attempt("t1"), date(2026, 11, 3))

    left = max(0, min(included, included + rolled_over - used))
    assert usage(office, "brigid-bucket", date(2026, 11, 1)) == (720, left, 0, 0)
    assert usage(office, "lakeside-bucket", date(2026, 11, 1)) == (1200, 0, 0, 0)


def test_one_bad_bucket_does_not_stop_the_others_and_is_done_when_it_is_good_again(office: Office) -> None:
    refuse(office, "INSERT", "psa.bucket_usage", "NEW.contract_line_id = 'foyle-bucket'")
    first = office.jobs.attempt("t1")

    with pytest.raises(PartlyFailed, match=r"1 of 3 buckets were not reconciled\. foyle-bucket: ") as caught:
        reconcile_buckets(first, TODAY)

    assert type(caught.value) is PartlyFailed, "another attempt may cure it"
    assert usage(office, "lakeside-bucket")[2] > 0
    office.books.run("DROP TRIGGER refuse ON psa.bucket_usage")
    again = reconcile_buckets(office.jobs.attempt("t1", first.job_id, number=2), TODAY)
    assert set(again["buckets"]) == {"lakeside-bucket", "brigid-bucket", "foyle-bucket"}


# -- clean-up


def test_old_temporary_forms_go_with_the_definitions_that_nothing_else_uses(office: Office) -> None:
    attempt = office.jobs.attempt()  # the system's

    result = delete_forms(attempt, DAY_OLD, NOON)

    assert result == {"before": "2026-10-30T12:00:00+00:00", "tenants": 2, "forms": 8, "definitions": 4}
    for tenant in ("t1", "t2"):
        state = office.state(tenant, "forms", "definitions", "audit")
        assert state["forms"] == [("form-1",), ("form-6",)]
        assert state["definitions"] == [("fd-onboarding",), ("fd-tmp-3",)]
        assert [entry[0] for entry in state["audit"]] == ["workflow_forms.deleted"]


def test_the_limit_can_be_shorter(office: Office) -> None:
    assert delete_forms(office.jobs.attempt("t1"), timedelta(hours=20), NOON)["forms"] == 4
    later = NOON + timedelta(days=1)
    assert delete_forms(office.jobs.attempt("t1"), timedelta(hours=20), later)["forms"] == 1


def test_one_bad_tenant_does_not_stop_the_others(office: Office) -> None:
    refuse(office, "DELETE", "psa.workflow_form_definitions", "OLD.tenant = 't1'")

    with pytest.raises(PartlyFailed, match=r"1 of 2 tenants' forms were not deleted\. t1: "):
        delete_forms(office.jobs.attempt(), DAY_OLD, NOON)

    assert len(office.state("t1", "forms")["forms"]) == 6, "in one transaction"
    assert len(office.state("t2", "forms")["forms"]) == 2


def test_keys_past_their_expiry_are_deactivated_with_reason_and_time(office: Office) -> None:
    result = deactivate_keys(office.jobs.attempt(), NOON)

    assert result == {"as_of": "2026-10-31T12:00:00+00:00", "tenants": 2, "keys": 4}
    keys = {row[0]: row[1:] for row in office.state("t1", "keys")["keys"]}
    assert keys["key-1"] == keys["key-2"] == (False, NOON, "expired")
    assert keys["key-3"] == (True, None, None)
    assert keys["key-4"][2] == "signed out", "what was deactivated keeps its reason"


# -- for the fan-out


def test_tenants_are_found_that_have_something_to_do(office: Office) -> None:
    with office.books.transaction() as connection:
        assert tenants_with_buckets(connection) == ["t1", "t2"]
        assert tenants_with_credits(connection) == ["t1", "t2"]
        connection.execute("UPDATE psa.credit_tracking SET expires_on = '9999-12-31'")
        connection.execute("UPDATE psa.credit_tracking SET expires_on = issued_on WHERE tenant = 't2'")
        assert tenants_with_credits_to_expire(connection) == ["t2"]
