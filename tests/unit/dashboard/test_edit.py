"""Data is edited with its secrets masked, and nothing that was masked is lost, moved or invented."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobbridge.dashboard.actions.edit import NotJson, SecretMissing, read, unmasked
from jobbridge.dashboard.views.formats import MASK, masked

KEYS = st.sampled_from(["password", "token", "note", "url", "n"])
LEAVES = st.none() | st.integers() | st.sampled_from(["", "x", "postgres://u:pw@host/db", "https://a:b@c/"])
DATA = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)
)


@given(DATA)
def test_data_that_was_not_changed_comes_back_as_it_was(data: Any) -> None:
    assert read(json.dumps(masked(data)), data) == data


@given(st.dictionaries(KEYS, DATA, min_size=1), st.integers())
def test_a_change_beside_a_secret_keeps_the_secret(data: dict[str, Any], number: int) -> None:
    edited = masked(data) | {"added": number}
    assert unmasked(edited, data) == data | {"added": number}


def test_secrets_go_with_their_element_when_a_list_changes() -> None:
    data = [{"name": "a", "token": "1"}, {"name": "b", "token": "2"}]
    assert unmasked([masked(data)[1]], data) == [data[1]]


@pytest.mark.parametrize(
    "edited", [{"other": MASK}, [MASK], {"note": {"password": MASK}}, f"https://a:{MASK}@evil/"]
)
def test_a_mask_is_no_value(edited: Any) -> None:
    with pytest.raises(SecretMissing):
        unmasked(edited, {"password": "hunter2", "note": "x"})


def test_what_is_no_json_is_refused() -> None:
    for text in ("", "{", "[" * 100_000):
        with pytest.raises(NotJson):
            read(text, {})
