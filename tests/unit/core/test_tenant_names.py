"""What may be called a tenant: names that look like others' are refused, with the character that is wrong."""

from __future__ import annotations

import pytest

from jobbridge.core.tenant_names import tenant_named
from jobbridge.errors import UnsupportedOption


@pytest.mark.parametrize(
    "name",
    ["acme", "Acme Inc. & Sons",
     "a/b:c@d", "11111111-1111-4111-8111-111111111111", "Caf\u00e9 \u00c9lan", "\u682a\u5f0f\u4f1a\u793e",
     "\u041e\u041e\u041e", "x" * 255, "-", "\U0001f680"],
)  # fmt: skip
def test_names_stay_as_they_are(name: str) -> None:
    assert tenant_named(name) == name


def test_a_name_is_the_same_however_its_accents_are_spelt() -> None:
    assert tenant_named("Cafe\u0301") == "Caf\u00e9"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "it is empty"),
        (" ", "begins or ends with a blank"),
        ("acme ", "begins or ends with a blank"),
        (" acme", "begins or ends with a blank"),
        ("acme\n", "U+000A"),
        ("ac\tme", "U+0009"),
        ("ac\0me", "U+0000"),
        ("acme\u200b", "U+200B"),
        ("ac\u200dme", "U+200D"),
        ("\ufeffacme", "U+FEFF"),
        ("ac\u00adme", "U+00AD"),
        ("\u202eemca", "U+202E"),
        ("\u2066acme\u2069", "U+2066"),
        ("ac\u2060me", "U+2060"),
        ("acme\u00a0", "U+00A0"),
        ("acme\u3000inc", "U+3000"),
        ("acme\u2028", "U+2028"),
        ("acme\u3164", "U+3164"),
        ("acme\ufe0f", "U+FE0F"),
        ("acme\U000e0041", "U+E0041"),
        ("ac\u034fme", "U+034F"),
        ("acme\ud800", "U+D800"),
        ("\u0301acme", "begins with a mark"),
        ("\uff41cme", "another form of 'acme'"),
        ("\U0001d41acme", "another form of 'acme'"),
        ("o\ufb03ce", "another form of 'office'"),
        ("x" * 256, "more than 255 characters"),
    ],
)
def test_what_looks_like_another_name_is_refused(name: str, told: str) -> None:
    with pytest.raises(UnsupportedOption) as refused:
        tenant_named(name)

    assert told in str(refused.value)
    assert str(refused.value).isprintable()
    assert str(refused.value).isascii()
