from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobbridge.errors import UnsupportedOption
from jobbridge.postgres.caller_connection import driver_connection
from jobbridge.store.database import Database
from jobbridge.store.values import as_jsonb, as_message, as_text

any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def test_a_database_does_not_show_its_password() -> None:
    assert "secret" not in repr(Database("postgresql://user:secret@host/db"))


def test_a_connection_of_another_driver_is_refused_by_name() -> None:
    class Connection:
        pass

    with pytest.raises(UnsupportedOption, match="Connection, which is no connection of psycopg 3"):
        driver_connection(Connection())


def test_text_keeps_all_that_postgres_can_hold() -> None:
    assert as_text("a\x00b\ud800c 🧾") == "a�b�c 🧾"
    assert as_text(None) is None


@given(any_json)
def test_json_that_postgres_can_hold_is_unchanged(value: Any) -> None:
    written = _written(value)
    # What it cannot hold: infinities, NUL, lone surrogates.
    if (
        "\\u0000" not in json.dumps(value)
        and "nfinity" not in json.dumps(value)
        and "\\ud" not in json.dumps(value)
    ):
        assert written == value


def test_json_that_postgres_cannot_hold_is_made_readable() -> None:
    value = {
        "a\x00": [math.nan, math.inf, "\udfff"],
        "when": {
            1,
        },
    }

    assert _written(value) == {"a�": ["nan", "inf", "�"], "when": "{1}"}


@given(any_json)
def test_a_message_comes_back_as_it_was(value: Any) -> None:
    text = as_message(value)

    assert (None if text is None else json.loads(text)) == value
    assert text is None or "\x00" not in text


def test_a_message_that_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError):
        as_message({"x": object()})


def _written(value: Any) -> Any:
    wrapped = as_jsonb(value)
    assert wrapped.dumps is not None
    return json.loads(wrapped.dumps(wrapped.obj))
