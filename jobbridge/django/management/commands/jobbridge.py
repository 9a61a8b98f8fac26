"""`manage.py jobbridge …`: the command `jobbridge`, for the app and the database of the project."""

from __future__ import annotations

import sys
from argparse import REMAINDER
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from jobbridge import django_settings
from jobbridge.cli.root import run
from jobbridge.django.apps import project_app


class Command(BaseCommand):
    """What `manage.py` calls; the arguments behind it are our own command's, `--help` included."""

    help = "JobBridge's command line, for this project's app and database."
    requires_system_checks: Sequence[str] = []

    def run_from_argv(self, argv: Sequence[str]) -> None:
        sys.exit(_run(argv[2:]))

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("arguments", nargs=REMAINDER)

    def handle(self, *_: Any, arguments: Sequence[str], **__: Any) -> None:
        code = _run(arguments)
        if code:
            raise CommandError(f"jobbridge {' '.join(arguments)} failed.", returncode=code)


def _run(arguments: Sequence[str]) -> int:
    app = django_settings.app_module() or project_app()
    chosen = [] if app is None else ["-A", app]
    # Its options are those of Celery's worker, which know no `-A` before the command.
    is_worker = list(arguments[:1]) == ["temporal-worker"]
    full = [*arguments[:1], *chosen, *arguments[1:]] if is_worker else [*chosen, *arguments]
    return run(full, prog_name="manage.py jobbridge")
