"""`manage.py migrate` for our tables, and the test database that Django makes."""

from __future__ import annotations

import sys
from functools import wraps
from typing import Any

from django.db import connections

from jobbridge import django_settings
from jobbridge.app.current import current
from jobbridge.app.django_transaction import let_go
from jobbridge.settings import in_schema, load_settings
from jobbridge.store.schema import migrate as migrations


def migrate(alias: str, *, verbosity: int = 1) -> None:
    """Migrate the database in which the jobs are; nothing happens if Django's has none of them.

    Args:
        alias: Of Django's database.
        verbosity: As of Django's commands.

    Raises:
        WorkersOfOlderReleases: They could not go on; `manage.py jobbridge migrate --force` ends them.
        DatabaseError, DatabaseUnavailable: As of `jobbridge migrate`.
    """
    settings = load_settings()
    url = settings.database_url
    if django_settings.is_moved():
        moved_to = django_settings.database_url()
        if moved_to is None or url != in_schema(moved_to, settings.database_schema):
            return  # tests leave alone what is not their own database
        _follow_test_run(connections[alias])
    if url is None:
        return
    before = migrations.current(url)
    after = migrations.migrate(url)
    if before != after:
        # A user called `jobbridge` has a schema of its name from now on, where this session would make Django's tables;
        # sessions that are opened from now on have another search_path (migration 0018).
        connections[alias].close()
    if verbosity >= 1 and before != after:
        sys.stdout.write(
            f"Migrating JobBridge's tables: {', '.join(before) or 'none'} → {', '.join(after)}\n"
        )


def _follow_test_run(connection: Any) -> None:
    """Have the app use the test database, and let go of it before it is dropped: Postgres drops none that is in use."""
    app = current()
    if app is not None:
        app.django_transaction.follow_tests()
    destroy = connection.creation.destroy_test_db
    if getattr(destroy, "is_jobbridges", False):
        return

    @wraps(destroy)
    def destroy_test_db(*arguments: Any, **options: Any) -> Any:
        if (app := current()) is not None:
            let_go(app)
        return destroy(*arguments, **options)

    destroy_test_db.is_jobbridges = True  # type: ignore[attr-defined]  # a mark of ours
    connection.creation.destroy_test_db = destroy_test_db
