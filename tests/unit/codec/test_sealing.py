"""What is sealed opens with its key, in its place, unaltered; and with nothing else."""

from __future__ import annotations

import base64
import os
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobbridge.codec.keys import KeyRing
from jobbridge.codec.rows import open_error, seal_error, seal_event
from jobbridge.codec.sealing import PLAIN, Codec
from jobbridge.core.events import Failed
from jobbridge.core.keys import JobKey, TenantId
from jobbridge.core.masking.values import masked, without_passwords
from jobbridge.errors import ConfigurationError, EncryptionError, EncryptionKeyMissing
from jobbridge.settings import load_settings


def key(name: str) -> str:
    return f"{name}:{base64.b64encode(os.urandom(32)).decode()}"


OLD, NEW = key("old"), key("new")
CODEC = Codec.of(OLD)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.binary(), st.text(), JSON)
def test_what_is_sealed_opens_to_what_it_was(data: bytes, text: str, value: object) -> None:
    assert CODEC.open(CODEC.seal(data, "a"), "a") == data
    assert CODEC.open_text(CODEC.seal_text(text, "a"), "a") == text
    assert CODEC.open_json(CODEC.seal_json(value, "a", is_exact=True), "a", is_exact=True) == value


def test_sealing_twice_and_opening_what_is_plain_change_nothing() -> None:
    sealed = CODEC.seal_json({"a": 1}, "place")

    assert CODEC.seal_json(sealed, "place") == sealed
    assert CODEC.open_json({"a": 1}, "place") == {"a": 1}
    assert CODEC.open_text("jb1: a text", "place") == "jb1: a text"
    assert CODEC.seal(b"x", "p") != CODEC.seal(b"x", "p")
    assert CODEC.seal(b"x", "p", is_stable=True) == CODEC.seal(b"x", "p", is_stable=True)
    assert CODEC.seal(b"x", "p", is_stable=True)[8:20] != CODEC.seal(b"x", "q", is_stable=True)[8:20]


def test_another_place_another_key_or_one_altered_bit_does_not_open() -> None:
    sealed = CODEC.seal(b"secret", "job/result")
    altered = [
        sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :] for place in range(len(sealed))
    ]

    for each in altered:
        with pytest.raises(EncryptionError):
            CODEC.open(each, "job/result")
    with pytest.raises(EncryptionError, match="another place"):
        CODEC.open(sealed, "other/result")
    with pytest.raises(EncryptionKeyMissing, match=r"'old'.*here are: 'new'"):
        Codec.of(NEW).open(sealed, "job/result")
    with pytest.raises(EncryptionKeyMissing, match="none"):
        PLAIN.open(sealed, "job/result")


def test_the_first_key_writes_and_all_of_them_read() -> None:
    both = Codec.of(f"{NEW}, {OLD}")

    assert both.open(CODEC.seal(b"x", "p"), "p") == b"x"
    assert both.seal(b"x", "p").startswith(b"jb1:new:")
    assert both.key_ids == ("new", "old")


def wrong_keys() -> dict[str, str]:
    return {
        "nothing": "",
        "no colon": "nokey",
        "no id": ":",
        "no key": "a:",
        "short": "a:short",
        "an id with a blank": f"a b:{OLD[4:]}",
        "one id twice": f"{OLD},{OLD}",
        "a long id": f"{'x' * 33}:{OLD[4:]}",
        "128 bits": "a:" + base64.b64encode(bytes(16)).decode(),
    }


@pytest.mark.parametrize("wrong", wrong_keys())
def test_keys_that_cannot_be_used_are_refused_without_showing_them(wrong: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        KeyRing.parse(wrong_keys()[wrong])

    assert OLD[4:] not in str(told.value)


def test_keys_come_from_the_environment_or_a_file(tmp_path: object) -> None:
    (path := tmp_path / "keys").write_text(f"{NEW}\n{OLD}\n")  # type: ignore[operator]

    assert Codec.of(load_settings({"JOBBRIDGE_ENCRYPTION_KEYS": OLD}).encryption_text()).key_ids == ("old",)
    from_file = load_settings({"JOBBRIDGE_ENCRYPTION_KEYS_FILE": str(path)}).encryption_text()
    assert Codec.of(from_file).key_ids == ("new", "old")
    assert not Codec.of(load_settings({}).encryption_text())
    with pytest.raises(ConfigurationError, match="JOBBRIDGE_ENCRYPTION_KEYS_FILE"):
        load_settings({"JOBBRIDGE_ENCRYPTION_KEYS_FILE": str(path) + "x"}).encryption_text()


def test_an_errors_class_stays_readable_and_nothing_else() -> None:
    job_id = uuid4()
    sealed = seal_error(CODEC, "ValueError: no such patient", job_id)

    assert sealed.startswith("ValueError: jb1:old:")
    assert open_error(CODEC, sealed, job_id) == "ValueError: no such patient"
    assert seal_error(CODEC, sealed, job_id) == sealed
    assert seal_error(CODEC, "no class: at all", job_id).startswith("jb1:old:")


def test_an_event_is_sealed_once_and_as_it_is_without_keys() -> None:
    event = Failed(
        key=JobKey(tenant=TenantId("acme"), job_id=uuid4()),
        attempt=1,
        error="E: x",
        traceback="at x",
        result=[1],
    )

    sealed = seal_event(CODEC, event)

    assert seal_event(CODEC, sealed) == sealed
    assert "at x" not in repr(sealed)
    assert seal_event(PLAIN, event) is event


def test_what_is_sealed_is_shown_as_such() -> None:
    job_id = uuid4()

    assert masked({"data": CODEC.seal_json({"a": 1}, "p")}) == {"data": "(encrypted)"}
    assert without_passwords(seal_error(CODEC, "ValueError: x", job_id)) == "ValueError: (encrypted)"
