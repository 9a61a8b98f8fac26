"""Which names may be one asset's, without comparing each with each. Pure.

`Reception printer 2`, `printer, reception 02` and `Recepton Printer 2` are one; `Reception printer 3` is another:
numbers must agree; words may come in any order, and differ a little.

A name is looked up by its *blocks*: its numbers together with all of its words but one, for each word in turn. Two
names share a block if they differ in one word at most, whatever the order: what a slip of the pen makes. Only names
that share a block are compared. A block in which more than BLOCK_LIMIT assets lie ("laptop" among laptops) says nothing
about any of them, so no more than that are compared: the work per row is bounded, however many assets there are.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass

from jobbridge.handlers.extras import required

#: Assets that are compared for one block.
BLOCK_LIMIT = 20

#: Words beyond these do not make blocks of their own.
WORD_LIMIT = 8

#: Of a name with a single word, which has no "all but one": its beginning and its end.
STEM = 3

_PARTS = re.compile(r"[^\W\d_]+|\d+")


@dataclass(frozen=True, slots=True)
class Spelling:
    """What two names are compared by.

    Attributes:
        words: In alphabetical order, without case and accents.
        numbers: In order of value; leading zeros do not count.
    """

    words: tuple[str, ...]
    numbers: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def spelling_of(name: str) -> Spelling:
    decomposed = unicodedata.normalize("NFKD", name)
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter)).casefold()
    parts = _PARTS.findall(plain)
    return Spelling(
        words=tuple(sorted(part for part in parts if not part[0].isdigit())),
        numbers=tuple(sorted(part.lstrip("0") or "0" for part in parts if part[0].isdigit())),
    )


def blocks_of(spelling: Spelling) -> list[int]:
    """Give the blocks of a name, as numbers of 64 bits; equal blocks are equal numbers, in every process."""
    words, numbers = spelling.words[:WORD_LIMIT], " ".join(spelling.numbers)
    if len(words) > 1:
        keys = [" ".join(words[:left] + words[left + 1 :]) for left in range(len(words))]
    else:
        word = "".join(words)
        keys = [f"{word[:STEM]}…", f"…{word[-STEM:]}"]
    return sorted({_number(f"{numbers}|{key}") for key in keys})


def similarity(one: Spelling, other: Spelling) -> int:
    """Give how alike two names are, in percent; 0 if their numbers differ."""
    if one.numbers != other.numbers:
        return 0
    if one.words == other.words:
        return 100
    return int(required("rapidfuzz.fuzz", "Comparing names").ratio(one.text, other.text))


def _number(key: str) -> int:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
