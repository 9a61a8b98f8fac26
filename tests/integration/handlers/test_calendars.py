"""Calendars against services that behave like Graph and Google: kept alive, nothing leaked, no secret shown."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from jobbridge.bootstrap import make_app
from jobbridge.dev.calendars import (
    CLIENT_SECRET,
    REFRESH_TOKEN,
    Answer,
    GoogleService,
    GraphService,
    Request,
    broken,
    busy,
    run_calendar_service,
)
from jobbridge.errors import ConfigurationError
from jobbridge.handlers.calendars.errors import CalendarsNotRenewed, ProviderUnavailable
from jobbridge.handlers.calendars.google import tenants_with_google_calendars, verify_channels
from jobbridge.handlers.calendars.graph import Graph
from jobbridge.handlers.calendars.http import retry_after
from jobbridge.handlers.calendars.microsoft import renew_subscriptions, tenants_with_microsoft_calendars
from jobbridge.handlers.calendars.models import (
    CalendarProvider,
    ProviderKind,
    RenewSubscriptions,
    VerifyChannels,
)
from jobbridge.handlers.calendars.providers import http_client
from jobbridge.handlers.calendars.secrets import Secret
from jobbridge.handlers.errors import PartlyRefused
from jobbridge.settings import Settings, load_settings
from tests.dying import Died, die_at_each_step
from tests.handler_runs import Attempt, Jobs

WEBHOOKS = "https://hooks.example/calendars"
HEALTH = """
SELECT provider_id, status, failures_in_a_row, last_error
FROM psa.calendar_health
WHERE tenant = %s
ORDER BY provider_id
"""
SUBSCRIPTIONS = """
SELECT provider_id, subscription_id, making_job
FROM psa.calendar_subscriptions
WHERE tenant = %s
ORDER BY provider_id
"""
CHANNELS = "SELECT provider_id, channel_id::text, status FROM psa.calendar_channels WHERE tenant = %s ORDER BY 1, since"


class Calendars:
    """Two services, a database with two tenants' providers, and jobs."""

    def __init__(self, url: str, folder: Path, graph: GraphService, google: GoogleService) -> None:
        self.graph, self.google, self.jobs = graph, google, Jobs(url)
        self.folder = folder
        self.secret(client_id="app", client_secret=CLIENT_SECRET, refresh_token=REFRESH_TOKEN)
        for tenant in ("t1", "t2"):
            for name in ("anna", "brian"):
                self.add(tenant, f"outlook-{name}", "microsoft", f"users/{name}/events", "directory")
                self.add(tenant, f"google-{name}", "google", f"{name}@{tenant}.example", None)
                google.calendars.add(f"{name}@{tenant}.example")

    def secret(self, **fields: str) -> None:
        (self.folder / "app.json").write_text(json.dumps(fields))

    def add(self, tenant: str, provider_id: str, kind: str, resource: str, directory: str | None) -> None:
        self.run(
            "INSERT INTO psa.calendar_providers (tenant, provider_id, kind, name, resource, secret_name, directory_id)"
            " VALUES (%s, %s, %s, %s, %s, 'app', %s)",
            tenant, provider_id, kind, provider_id, resource, directory,
        )  # fmt: skip

    def run(self, statement: str, *values: object) -> None:
        with self.jobs.database.transaction() as connection:
            connection.execute(statement.encode(), values)

    @property
    def settings(self) -> Settings:
        return load_settings(
            {
                "CALENDAR_SECRETS_DIR": str(self.folder),
                "CALENDAR_WEBHOOK_URL": WEBHOOKS,
                "MICROSOFT_GRAPH_URL": self.graph.url,
                "MICROSOFT_LOGIN_URL": self.graph.url,
                "GOOGLE_CALENDAR_URL": self.google.url,
                "GOOGLE_TOKEN_URL": f"{self.google.url}/token",
            }
        )

    def renew(self, attempt: Attempt | None = None, **data: Any) -> dict[str, Any]:
        """What happened to each Microsoft calendar of t1."""
        result = renew_subscriptions(
            attempt or self.jobs.attempt("t1"), self.settings, RenewSubscriptions(**data)
        )
        return {provider: done["action"] for provider, done in result["renewed"].items()}

    def verify(self, attempt: Attempt | None = None, **data: Any) -> dict[str, Any]:
        """What happened to each Google calendar of t1."""
        result = verify_channels(attempt or self.jobs.attempt("t1"), self.settings, VerifyChannels(**data))
        return {provider: done["action"] for provider, done in result["verified"].items()}

    def end_soon(self) -> None:
        self.run("UPDATE psa.calendar_subscriptions SET expires_at = now() + interval '1 minute'")
        self.run("UPDATE psa.calendar_channels SET expires_at = now() + interval '1 minute'")

    def health(self) -> dict[str, tuple[Any, ...]]:
        return {provider: tuple(rest) for provider, *rest in self.jobs.table(HEALTH, "t1")}

    def forget(self) -> None:
        self.run("TRUNCATE psa.calendar_subscriptions, psa.calendar_channels, psa.calendar_health")
        self.graph.subscriptions.clear()
        self.google.channels.clear()


@pytest.fixture
def calendars(database_url: str, tmp_path: Path) -> Iterator[Calendars]:
    graph, google = GraphService(), GoogleService()
    with run_calendar_service(graph), run_calendar_service(google):
        found = Calendars(database_url, tmp_path, graph, google)
        yield found
        found.jobs.database.close()


def asked(service: GraphService | GoogleService) -> list[tuple[str, str]]:
    """Requests but for tokens, without ids."""
    return [
        (request.method, request.path.split("/")[1].partition("?")[0])
        for request in service.requests
        if not request.path.endswith("/token")
    ]


def assert_graph_has_what_we_know(calendars: Calendars, count: int = 2) -> None:
    known = calendars.jobs.table(SUBSCRIPTIONS, "t1")
    assert {subscription_id for _, subscription_id, _ in known} == set(calendars.graph.subscriptions)
    assert [making for *_, making in known] == [None] * count


def assert_google_has_what_we_know(calendars: Calendars, count: int = 2) -> None:
    known = calendars.jobs.table(CHANNELS, "t1")
    assert [status for *_, status in known] == ["open"] * count
    assert {channel_id for _, channel_id, _ in known} == set(calendars.google.channels)


# -- Microsoft


def test_a_subscription_is_made_then_left_alone_then_renewed_when_it_ends_soon(calendars: Calendars) -> None:
    assert calendars.renew() == {"outlook-anna": "created", "outlook-brian": "created"}
    assert calendars.renew() == {}
    calendars.end_soon()
    assert calendars.renew() == {"outlook-anna": "renewed", "outlook-brian": "renewed"}

    assert_graph_has_what_we_know(calendars)
    assert asked(calendars.graph) == [("POST", "subscriptions")] * 2 + [("PATCH", "subscriptions")] * 2
    made = next(iter(calendars.graph.subscriptions.values()))
    assert made["notificationUrl"] == f"{WEBHOOKS}/microsoft/t1/outlook-anna"
    left = datetime.fromisoformat(made["expirationDateTime"]) - datetime.now(UTC)
    assert timedelta(minutes=4200) < left <= timedelta(minutes=4230)


def test_how_far_to_look_ahead_can_be_said(calendars: Calendars) -> None:
    calendars.renew()
    assert len(calendars.renew(look_ahead_minutes=4000)) == 0
    calendars.run("UPDATE psa.calendar_subscriptions SET expires_at = now() + interval '200 minutes'")
    assert len(calendars.renew()) == 0
    assert len(calendars.renew(look_ahead_minutes=240)) == 2


def test_what_graph_has_dropped_is_made_anew(calendars: Calendars) -> None:
    calendars.renew()
    calendars.end_soon()
    calendars.graph.subscriptions.clear()

    assert calendars.renew() == {"outlook-anna": "recreated", "outlook-brian": "recreated"}
    assert_graph_has_what_we_know(calendars)


@pytest.mark.parametrize("state", ["nothing yet", "dropped by Graph", "ending soon"])
def test_wherever_the_microsoft_job_dies_the_next_attempt_leaves_one_subscription_each(
    calendars: Calendars, state: str
) -> None:
    def prepare() -> None:
        calendars.forget()
        if state != "nothing yet":
            calendars.renew()
            calendars.end_soon()
        if state == "dropped by Graph":
            calendars.graph.subscriptions.clear()

    def live_and_try_again(lives: int) -> None:
        prepare()
        mortal = calendars.jobs.attempt("t1", lives=lives)
        try:
            calendars.renew(mortal)
        except Died:
            calendars.renew(calendars.jobs.attempt("t1", mortal.job_id, number=2))
            assert_graph_has_what_we_know(calendars)
            assert [row[:2] for row in calendars.health().values()] == [("healthy", 0)] * 2
            raise

    assert die_at_each_step(live_and_try_again) > 8


def test_of_several_that_nobody_knows_one_is_kept_and_the_others_are_deleted(calendars: Calendars) -> None:
    for number in range(3):
        calendars.graph.subscribe(f"{WEBHOOKS}/microsoft/t1/outlook-anna", timedelta(hours=number + 1))
    others = calendars.graph.subscribe(f"{WEBHOOKS}/microsoft/t2/outlook-anna", timedelta(hours=1))
    calendars.run(
        "INSERT INTO psa.calendar_subscriptions VALUES ('t1', 'outlook-anna', NULL, NULL, 'dead', 'epoch')"
    )

    assert calendars.renew()["outlook-anna"] == "found"

    del calendars.graph.subscriptions[others]
    assert_graph_has_what_we_know(calendars)


def test_a_provider_that_another_job_is_at_is_left_to_it(calendars: Calendars) -> None:
    calendars.run(
        "INSERT INTO psa.calendar_subscriptions VALUES ('t1', 'outlook-anna', NULL, NULL, 'other-job', now())"
    )

    with pytest.raises(CalendarsNotRenewed, match="Job other-job is renewing 'outlook-anna'") as caught:
        calendars.renew()

    assert caught.value.retry_after == timedelta(seconds=30)
    assert list(calendars.health()) == ["outlook-brian"], "it says nothing about the provider"


# -- Google


def test_a_channel_is_opened_then_verified_then_replaced_when_it_ends_soon(calendars: Calendars) -> None:
    assert calendars.verify() == {"google-anna": "renewed", "google-brian": "renewed"}
    assert calendars.verify() == {"google-anna": "verified", "google-brian": "verified"}
    before = set(calendars.google.channels)
    calendars.end_soon()
    assert calendars.verify() == {"google-anna": "renewed", "google-brian": "renewed"}

    assert not before & set(calendars.google.channels), "the old ones are stopped"
    assert_google_has_what_we_know(calendars)


def test_the_old_channel_works_until_the_new_one_does(calendars: Calendars) -> None:
    calendars.verify()
    calendars.end_soon()
    before = set(calendars.google.channels)
    calendars.google.before = lambda request: broken() if "watch" in request.path else None

    with pytest.raises(CalendarsNotRenewed):
        calendars.verify()

    assert set(calendars.google.channels) == before


def test_a_calendar_that_is_gone_is_said_to_be(calendars: Calendars) -> None:
    calendars.google.calendars.remove("anna@t1.example")

    with pytest.raises(PartlyRefused, match="no calendar 'anna@t1"):
        calendars.verify()

    assert calendars.health()["google-brian"][0] == "healthy"


@pytest.mark.parametrize("state", ["nothing yet", "ending soon"])
def test_wherever_the_google_job_dies_the_next_attempt_leaves_one_channel_each(
    calendars: Calendars, state: str
) -> None:
    def live_and_try_again(lives: int) -> None:
        calendars.forget()
        if state == "ending soon":
            calendars.verify()
            calendars.end_soon()
        mortal = calendars.jobs.attempt("t1", lives=lives)
        try:
            calendars.verify(mortal)
        except Died:
            calendars.verify(calendars.jobs.attempt("t1", mortal.job_id, number=2))
            assert_google_has_what_we_know(calendars)
            raise

    assert die_at_each_step(live_and_try_again) > 12


# -- both, when the provider says no


def both(calendars: Calendars) -> list[tuple[GraphService | GoogleService, Callable[..., dict[str, Any]]]]:
    return [(calendars.graph, calendars.renew), (calendars.google, calendars.verify)]


def test_an_expired_token_is_renewed_once(calendars: Calendars) -> None:
    for service, run in both(calendars):
        expired: list[Request] = []

        def expire_once(request: Request, service: Any = service, expired: Any = expired) -> Answer | None:
            if not request.path.endswith("/token") and not expired:
                expired.append(request)
                service.expire_tokens()
            return None

        service.before = expire_once
        assert len(run()) == 2
        assert sum(request.path.endswith("/token") for request in service.requests) == 3


def test_credentials_that_are_refused_are_not_tried_again(calendars: Calendars) -> None:
    calendars.secret(client_id="app", client_secret="wrong", refresh_token="wrong")
    for service, run in both(calendars):
        with pytest.raises(PartlyRefused, match="gives no token: invalid_grant no such credentials"):
            run()
        assert len(service.requests) == 2, "once for each calendar"


def test_a_server_that_is_busy_says_when_the_next_attempt_comes(calendars: Calendars) -> None:
    for service, run in both(calendars):
        service.before = lambda request: None if request.path.endswith("/token") else busy("120")
        attempt = calendars.jobs.attempt("t1")

        with pytest.raises(CalendarsNotRenewed, match="the next one in 120 s") as caught:
            run(attempt)
        assert caught.value.retry_after == timedelta(seconds=120)

        seen = len(service.requests)
        with pytest.raises(CalendarsNotRenewed) as caught:
            run(calendars.jobs.attempt("t1"))
        assert len(service.requests) == seen, "nobody asks before that"
        assert timedelta(seconds=100) < caught.value.retry_after <= timedelta(seconds=120)

        service.before = lambda request: None
        calendars.run("UPDATE psa.calendar_health SET paused_until = now()")
        assert len(run(calendars.jobs.attempt("t1", attempt.job_id, number=2))) == 2
    assert_graph_has_what_we_know(calendars)
    assert_google_has_what_we_know(calendars)


def test_a_server_that_is_busy_for_hours_leaves_it_to_a_later_run(calendars: Calendars) -> None:
    for service, run in both(calendars):
        service.before = lambda request: None if request.path.endswith("/token") else busy("7200")
        with pytest.raises(PartlyRefused, match="too many requests; not before"):
            run()


def test_one_providers_failure_does_not_stop_the_others(calendars: Calendars) -> None:
    calendars.graph.before = lambda request: broken() if "anna" in str(request.body) else None
    calendars.google.before = lambda request: broken() if "anna" in request.path else None
    for _, run in both(calendars):
        with pytest.raises(
            CalendarsNotRenewed, match=r"1 of 2 calendars were not renewed\. \w+-anna: .* says 503"
        ):
            run()

    health = calendars.health()
    assert health["outlook-brian"] == health["google-brian"] == ("healthy", 0, None)
    assert health["outlook-anna"][:2] == health["google-anna"][:2] == ("healthy", 1)


def test_after_three_failed_jobs_in_a_row_a_provider_is_failing_and_recovers(calendars: Calendars) -> None:
    for service, _ in both(calendars):
        service.before = lambda request: broken()
    for failures in (1, 2, 3, 4):
        job = calendars.jobs.attempt("t1").job_id
        for _, run in both(calendars):
            for number in (1, 2):  # the attempts of one job are one failure
                with pytest.raises(CalendarsNotRenewed):
                    run(calendars.jobs.attempt("t1", job, number=number))
        expected = ("failing" if failures >= 3 else "healthy", failures)
        assert {row[:2] for row in calendars.health().values()} == {expected}
    for service, run in both(calendars):
        service.before = lambda request: None
        run()

    assert set(calendars.health().values()) == {("healthy", 0, None)}


def test_a_server_that_hangs_is_left_after_the_time_limit(calendars: Calendars) -> None:
    released = threading.Event()
    calendars.graph.before = lambda request: (released.wait(20), None)[1]

    provider = CalendarProvider(
        provider_id="p",
        kind=ProviderKind.MICROSOFT,
        name="p",
        resource="r",
        secret_name="app",
        directory_id="d",
    )
    with http_client(timedelta(seconds=0.2)) as http:
        graph = Graph(
            http, provider, Secret.read(calendars.folder, "app"),
            graph_url=calendars.graph.url, login_url=calendars.graph.url,
        )  # fmt: skip
        with pytest.raises(ProviderUnavailable, match="does not answer: ReadTimeout"):
            graph.delete("x")
    released.set()


def test_no_secret_is_in_an_error_a_log_or_a_row(
    calendars: Calendars, caplog: pytest.LogCaptureFixture
) -> None:
    """The worst provider there is repeats all that it was sent."""
    caplog.set_level("DEBUG")

    def repeat(request: Request, answer: Answer) -> Answer:
        if request.path.endswith("/token"):
            return answer
        return broken(
            400, f"I was sent {request.token} and {request.body}, you said {CLIENT_SECRET} {REFRESH_TOKEN}"
        )

    calendars.graph.after = calendars.google.after = repeat
    told = ""
    for _, run in both(calendars):
        with pytest.raises(PartlyRefused) as caught:
            run()
        told += str(caught.value)
    told += str(calendars.health()) + caplog.text
    told += str(calendars.jobs.table("SELECT result, error FROM job_details"))

    secrets = {CLIENT_SECRET, REFRESH_TOKEN, *calendars.graph.tokens, *calendars.google.tokens}
    secrets |= {
        request.body["clientState"] for request in calendars.graph.requests if "clientState" in request.body
    }
    assert "[secret]" in told
    assert [secret for secret in secrets if secret in told] == []


def test_each_tenant_has_calendars_of_its_own(calendars: Calendars) -> None:
    calendars.renew()
    calendars.verify()

    assert calendars.jobs.table(SUBSCRIPTIONS, "t2") == calendars.jobs.table(CHANNELS, "t2") == []
    with calendars.jobs.database.transaction() as connection:
        assert tenants_with_microsoft_calendars(connection) == ["t1", "t2"]
        connection.execute("UPDATE psa.calendar_providers SET is_active = false WHERE tenant = 't2'")
        assert tenants_with_google_calendars(connection) == ["t1"]


@pytest.mark.parametrize("missing", ["CALENDAR_WEBHOOK_URL", "CALENDAR_SECRETS_DIR"])
def test_a_setting_that_is_missing_is_named(calendars: Calendars, missing: str) -> None:
    field = missing.lower()
    settings = calendars.settings.model_copy(update={field: None})
    with pytest.raises(ConfigurationError, match=missing):
        verify_channels(calendars.jobs.attempt("t1"), settings, VerifyChannels())


@pytest.mark.parametrize("content", [None, "{", '["a"]', '{"client_id": 1}', "{}"])
def test_a_secret_that_cannot_be_used_is_named_and_not_shown(
    calendars: Calendars, content: str | None
) -> None:
    path = calendars.folder / "app.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(PartlyRefused, match="The secret 'app' cannot be used"):
        calendars.renew()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("17", 17), (None, 30), ("soon", 30), ("-5", 30), (format_datetime(datetime(2026, 1, 1, 0, 1, tzinfo=UTC)), 60),
     (format_datetime(datetime(2025, 1, 1, tzinfo=UTC)), 0)],
)  # fmt: skip
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, seconds: int) -> None:
    assert retry_after(header, datetime(2026, 1, 1, tzinfo=UTC)) == timedelta(seconds=seconds)


@pytest.mark.parametrize("name", ["renew-microsoft-calendar-webhooks", "verify-google-calendar-pubsub"])
def test_a_job_of_nobody_goes_over_all_tenants_that_have_such_calendars(
    calendars: Calendars, database_url: str, name: str
) -> None:
    app = make_app(calendars.settings.model_copy(update={"database_url": database_url}))
    app.loader.import_default_modules()
    app.finalize()

    result = app.tasks[name].apply(args=[{}])

    assert result.get()["completed"] == 2
    assert len(calendars.graph.subscriptions) + len(calendars.google.channels) == 4
    app.close()
    app.database.close()
