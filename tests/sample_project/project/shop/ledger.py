"""What tasks did, one file for each word: the shop's only database."""

import os
from pathlib import Path


def folder():
    path = Path(os.environ["SHOP_LEDGER"])
    path.mkdir(exist_ok=True)
    return path


def note(word, text=""):
    """Append a line, and give the number of lines."""
    path = folder() / word
    with path.open("a") as file:
        file.write(f"{text}\n")
    return len(path.read_text().splitlines())


def lines(word):
    path = folder() / word
    return path.read_text().splitlines() if path.exists() else []
