import inspect
import pickle
from uuid import UUID

import pytest
from celery import Celery

from jobbridge.errors import JobBridgeError
from jobbridge.handlers import errors as shared
from jobbridge.handlers.invoicing import errors
from jobbridge.handlers.mailing import errors as mailing
from tests.books import OCTOBER

MODULES = (errors, mailing, shared)

EXAMPLES: list[JobBridgeError] = [
    errors.UnknownClient.about("acme"),
    shared.UnknownProvider.about("t1"),
    shared.UnknownTimeZone.about("t1", "Mars/Olympus"),
    shared.PartlyFailed.about("credits were not expired", {"cr-1": "busy"}, of=3),
    shared.PartlyRefused.about("credits were not expired", {"cr-1": "no"}, of=3),
    errors.UnknownInvoice.about([UUID(int=1), UUID(int=2)]),
    errors.WindowAlreadyBilled.about("acme", OCTOBER, "INV-1", OCTOBER),
    errors.NoBillingAddress.about("acme", "Acme Ltd"),
    errors.NoRate.about("acme", "contract line 7"),
    errors.NoTaxRate.about("acme", "IE", "standard"),
    errors.UnapprovedTime.about("acme", ["te-1", "te-2"]),
    mailing.NoRecipient.about("acme"),
    mailing.BadAddress.about("Acme Ltd", "nowhere", "no @"),
    errors.RenderingFailed.about("INV-1", "too long"),
    mailing.MailServerUnavailable("gone"),
    mailing.MailDeferred("later"),
    mailing.MailRefused("never"),
    mailing.MailUncertain.about("a@acme.example", "<1@h>"),
    errors.InvoicesNotMailed.about("invoices were not mailed", {"INV-1": "gone", "INV-2": "later"}, of=3),
    errors.InvoicesCannotBeMailed.about("invoices were not mailed", {"INV-1": "never"}, of=3),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_each_error_says_what_to_do(error: JobBridgeError) -> None:
    assert error.hint[0].isupper()
    assert error.hint.endswith(".")


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_each_error_is_the_same_after_its_way_through_a_result_backend(error: JobBridgeError) -> None:
    backend = Celery(backend="cache+memory://", set_as_current=False).backend

    as_json = backend.exception_to_python(backend.prepare_exception(error, "json"))
    as_pickle = pickle.loads(pickle.dumps(error))

    for copy in (as_json, as_pickle):
        assert (type(copy), str(copy), copy.hint) == (type(error), str(error), error.hint)


def test_each_error_has_an_example_here() -> None:
    defined = {
        cls
        for module in MODULES
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ == module.__name__
    }

    assert defined - {type(error) for error in EXAMPLES} == {shared.Refusal, mailing.MailError}
