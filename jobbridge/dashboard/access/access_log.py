"""Lines of the access log without what is nobody's to read there: queries, and the secrets of links."""

from __future__ import annotations

import logging
import re

from jobbridge.core.masking.values import MASK

#: The secret of a link is in its path: whoever has the address sees the job, or answers for it.
_LINK = re.compile(r"(/public/(?:jobs|events)/)[^/]+")


class WithoutSecrets(logging.Filter):
    """Takes them away from records of `uvicorn.access`.

    Source: uvicorn 0.54, protocols/http: the arguments are client, method, path with query, version and status.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the record, and less of it."""
        arguments = record.args
        if isinstance(arguments, tuple) and len(arguments) > 2:
            path = shown(str(arguments[2]))
            record.args = (*arguments[:2], path, *arguments[3:])
        return True


def shown(address: str) -> str:
    """Give an address without its query, and without a link's secret."""
    return _LINK.sub(rf"\1{MASK}", address.partition("?")[0])


def install() -> None:
    """Have uvicorn's access log so, in this process; again is harmless."""
    log = logging.getLogger("uvicorn.access")
    if not any(isinstance(each, WithoutSecrets) for each in log.filters):
        log.addFilter(WithoutSecrets())
