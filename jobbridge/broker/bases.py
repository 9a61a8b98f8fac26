"""Which family of kombu's our transport is of: the SQLAlchemy transport, from when anybody has imported that.

Of what it has, ours replaces everything, but to import it takes all of SQLAlchemy and its ORM: a third of the processor
time of a worker's imports, and 15 MB of its memory. So ours derives from what that derives from, and is given its
classes as bases when they are there: who can ask whether ours is one of them has imported them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

from kombu.transport import virtual

_FAMILY: Final = "kombu.transport.sqlalchemy"


class Transport(virtual.Transport):
    """Stands for the transport of `kombu.transport.sqlalchemy`, and derives from it when that is there."""


class Channel(virtual.Channel):
    """Stands for its channel, likewise."""


def _join(family: ModuleType) -> None:
    Transport.__bases__ = (family.Transport,)
    Channel.__bases__ = (family.Channel,)


class _OnImport(MetaPathFinder):
    """Lets the import system find the family as always, and joins it when its module has been executed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _FAMILY:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def execute_and_join(module: ModuleType) -> None:
                execute(module)
                _join(module)

            loader.exec_module = execute_and_join
        return spec


if _FAMILY in sys.modules:
    _join(sys.modules[_FAMILY])
else:
    sys.meta_path.insert(0, _OnImport())
