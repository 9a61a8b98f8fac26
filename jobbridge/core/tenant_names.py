"""What may be called a tenant: no two names that look alike, as far as characters can tell.

People read names, in lists, filters and forms that suspend or purge. A name with a character that nobody sees, or that
is another's with one spelt otherwise, would be taken for that one.

Source: Unicode Standard Annex 15 (normal forms), Technical Report 36 (security), `Default_Ignorable_Code_Point`.
"""

from __future__ import annotations

import functools
import unicodedata

from jobbridge.core.keys import TenantId
from jobbridge.errors import UnsupportedOption

#: Characters; an index holds some more bytes, and a name is to be read.
LIMIT = 255

#: Controls, formats (zero-width, right-to-left), halves of pairs, private ones, ends of lines and of paragraphs.
_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
#: Letters, marks and symbols that nobody sees: fillers, joiners, variation selectors, the blank of Braille.
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(each)
    for first, last in ((0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
    for each in range(first, last + 1)
}


@functools.lru_cache(maxsize=4096)
def tenant_named(name: str) -> TenantId:
    """Give the tenant of that name, in Unicode's normal form C.

    Raises:
        UnsupportedOption: It looks like another name, or like none.
    """
    if name.isascii() and name.isprintable() and name == name.strip() and 0 < len(name) <= LIMIT:
        return TenantId(name)
    normal = unicodedata.normalize("NFC", name)
    problem = _problem_of(normal)
    if problem is not None:
        shown = ascii(name if len(name) <= LIMIT else name[:40] + "…")
        raise UnsupportedOption(f"{shown} cannot be a tenant: {problem}.", hint="Name the tenant otherwise.")
    return TenantId(normal)


def _problem_of(name: str) -> str | None:
    if not name:
        return "it is empty"
    if len(name) > LIMIT:
        return f"it has more than {LIMIT} characters"
    for character in name:
        if character in _UNSEEN or unicodedata.category(character) in _UNSEEN_CATEGORIES:
            return f"nobody sees its character U+{ord(character):04X}"
        if character.isspace() and character != " ":
            return f"its character U+{ord(character):04X} looks like a blank, and is none"
    if name != name.strip():
        return "it begins or ends with a blank"
    if unicodedata.category(name[0]).startswith("M"):
        return "it begins with a mark that belongs to a letter before it"
    usual = unicodedata.normalize("NFKC", name)
    if usual != name:
        return f"it is another form of {usual!r}, and looks like that"
    return None
