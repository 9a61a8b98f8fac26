"""What `mkdocs build` does to our pages besides.

Decisions get their place in the navigation by themselves. Links to files of the checkout that are no pages become plain
text, since the site has no copy of them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_LINK_OUT_OF_DOCS = re.compile(r"\[([^\]]*)\]\((?:\.\./)+(?!docs/)[^)]*\)")


def on_config(config: Any) -> Any:
    decisions = sorted(Path(config["docs_dir"], "decisions").glob("*.md"))
    pages = [f"decisions/{decision.name}" for decision in decisions]
    config["nav"].append({"Decisions": pages})
    return config


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    if "/" in page.file.src_uri:  # one folder down, `..` is still a page of ours
        return re.sub(r"\[([^\]]*)\]\((?:\.\./){2,}[^)]*\)", r"\1", markdown)
    return _LINK_OUT_OF_DOCS.sub(r"\1", markdown)
