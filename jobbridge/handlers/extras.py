"""The packages of `jobbridge[handlers]`: imported when they are first used, so that an installation may lack them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from jobbridge.errors import ConfigurationError


def required(module: str, what_for: str) -> Any:
    """Import a module.

    Args:
        what_for: Completes "… needs httpx, which is not installed": `asking calendar providers`.

    Raises:
        ConfigurationError: Its package is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ConfigurationError(
            f"{what_for} needs {package}, which is not installed.",
            hint="Install it with `pip install 'jobbridge[handlers]'`.",
        ) from None
