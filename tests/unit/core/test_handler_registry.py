from __future__ import annotations

import pytest

from jobbridge.core.handlers import HandlerSpec, JobHandlerRegistry
from jobbridge.errors import DuplicateHandler, UnknownHandler


def first(ctx: object, data: object) -> None: ...


def second(ctx: object, data: object) -> None: ...


@pytest.fixture
def registry() -> JobHandlerRegistry:
    registry = JobHandlerRegistry()
    registry.register(HandlerSpec(name="invoice.send", function=first))
    return registry


def test_an_unknown_name_gets_the_nearest_as_a_suggestion(registry: JobHandlerRegistry) -> None:
    with pytest.raises(UnknownHandler, match=r"'invoice\.sned'\. Did you mean 'invoice\.send'\?"):
        registry.get("invoice.sned")


def test_a_second_handler_of_a_name_is_an_error_that_names_both(registry: JobHandlerRegistry) -> None:
    with pytest.raises(
        DuplicateHandler, match=r"test_handler_registry\.first.*test_handler_registry\.second"
    ):
        registry.register(HandlerSpec(name="invoice.send", function=second))


def test_unless_it_is_forced(registry: JobHandlerRegistry) -> None:
    registry.register(HandlerSpec(name="invoice.send", function=second), force=True)

    assert registry.get("invoice.send").function is second


def test_the_same_handler_again_is_no_conflict(registry: JobHandlerRegistry) -> None:
    registry.register(HandlerSpec(name="invoice.send", function=first))

    assert registry.names() == ["invoice.send"]
    assert registry.unregister("invoice.send")
    assert not registry.has("invoice.send")
