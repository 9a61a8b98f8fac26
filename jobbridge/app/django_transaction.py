"""Django's open transaction, which a task sent inside `atomic()` joins; and the database that Django's tests use.

Joined is what an application sends of its own: with the commit of the block it is there, with a rollback it never was.
Not what goes on with the job that runs: `self.retry()` and `self.replace()` raise, so their own block rolls back.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from jobbridge import django_settings
from jobbridge.app.urls import broker_url_for, is_ours
from jobbridge.errors import JobBridgeError
from jobbridge.postgres.target import Target
from jobbridge.settings import in_schema

if TYPE_CHECKING:
    from jobbridge.app.application import Celery

#: One server's start and one database's number: two sessions that say the same are in one database.
_WHERE = (
    "SELECT pg_postmaster_start_time()::text, oid::text FROM pg_database WHERE datname = current_database()"
)


class DjangoTransaction:
    """Of one app: whose transaction it is that a task is sent in.

    Args:
        app: The app.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._is_same: dict[tuple[str, ...], bool] = {}
        self._seen: tuple[str, ...] | None = None
        self._moved_to: Target | None = None

    def open_one(self) -> Any:
        """Give Django's connection if a transaction is open on it that tasks are to join; else None."""
        app, connections = self._app, getattr(sys.modules["django.db"], "connections", None)
        settings = django_settings.settings_of_django()
        if (
            connections is None
            or settings is None
            or (alias := django_settings.alias()) not in settings.DATABASES
        ):
            return None
        wrapper = connections[alias]
        place = _place_of(wrapper)
        if place != self._seen:
            self._seen = place
            self.follow_tests()
        if not wrapper.in_atomic_block or not app.settings.join_transactions:
            return None
        if place not in self._is_same:
            self._is_same[place] = app.shares_database_with_broker and self._is_in_same_database(wrapper)
        return wrapper if self._is_same[place] else None

    def follow_tests(self) -> None:
        """Have the app use the database of Django's test run, if there is one, and it used the one that was configured.

        Raises:
            ConfigurationError: The settings cannot be read.
        """
        url = django_settings.database_url() if django_settings.is_moved() else None
        if url is None or Target.of(url).place == (former := self._app.database.target).place:
            return
        # Of several processes of a test run, each has one of its own.
        if former == self._moved_to or django_settings.is_configured(former.url):
            move(self._app, url)
            self._moved_to = self._app.database.target

    def _is_in_same_database(self, wrapper: Any) -> bool:
        url = django_settings.url_of(wrapper.settings_dict)
        if url is None:
            return False
        target, own = Target.of(url), self._app.database.target
        if target.place == own.place:
            return True
        if target.database != own.database:
            return False
        # `localhost`, 127.0.0.1 and a socket, a pooler: the servers know. Who is not sure does not join.
        with wrapper.cursor() as cursor:
            cursor.execute(_WHERE)
            theirs = tuple(cursor.fetchone())
        try:
            return self._app.database.run(lambda own: own.execute(_WHERE).fetchone()) == theirs
        except JobBridgeError:
            return False


def move(app: Celery, url: str) -> None:
    """Have an app use another database from now on; what it has open is closed."""
    let_go(app)
    url = in_schema(url, app.settings.database_schema)
    app.database.target = Target.of(url)
    if is_ours(app.conf.broker_url):
        app.conf.broker_url = broker_url_for(url)
    app.__dict__.pop("shares_database_with_broker", None)


def let_go(app: Celery) -> None:
    """Close what an app has open, such as before its database is dropped; the next use opens it anew."""
    if "result_listener" in app.__dict__:
        app.__dict__.pop("result_listener").close()
    if "database" in app.__dict__:
        app.database.close()
    if (amqp := app.__dict__.get("amqp")) is not None:
        amqp.__dict__.pop("direct", None)
        if amqp._producer_pool is not None:
            amqp._producer_pool.force_close_all()
            amqp._producer_pool = None
    if app._pool is not None:
        app._pool.force_close_all()
        app._pool = None


def _place_of(wrapper: Any) -> tuple[str, ...]:
    return tuple(str(wrapper.settings_dict.get(name) or "") for name in ("HOST", "PORT", "NAME"))
