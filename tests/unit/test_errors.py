from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from jobbridge import errors


def every_error(
    base: type[errors.JobBridgeError] = errors.JobBridgeError,
) -> Iterator[type[errors.JobBridgeError]]:
    yield base
    for subclass in base.__subclasses__():
        if subclass.__module__ == errors.__name__:
            yield from every_error(subclass)


@pytest.mark.parametrize("kind", list(every_error()), ids=lambda kind: kind.__name__)
def test_every_error_can_be_restored_from_its_message_and_by_pickle(
    kind: type[errors.JobBridgeError],
) -> None:
    error = kind("What is wrong.")

    assert str(kind(*error.args)) == "What is wrong."
    restored = pickle.loads(pickle.dumps(error))
    assert (type(restored), str(restored), restored.hint) == (kind, str(error), error.hint)


def test_the_errors_with_a_shape_say_what_is_wrong_and_what_to_do() -> None:
    shaped = [
        errors.UnknownHandler.named("invoice.sned", suggestion="invoice.send"),
        errors.DuplicateHandler.named("invoice.send", "a.first", "b.second"),
        errors.InvalidJobData.of("invoice.send", "number: Field required"),
        errors.TenantRequired.by("invoice.send"),
        errors.JobNotFound.with_id("42"),
    ]

    assert all(error.hint for error in shaped)
    assert "Did you mean 'invoice.send'?" in str(shaped[0])
    assert "a.first and in b.second" in str(shaped[1])
