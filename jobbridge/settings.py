"""Settings, and where each came from. The only reader of the environment.

An explicit argument wins over the environment, that over `JOBBRIDGE` in Django's settings, that over a `.env` file in
the working directory, that over what a running `jobbridge dev` left in `.jobbridge/dev.json`, that over Django's
`DATABASES["default"]`, and that over the default. Nothing is read at import.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from dotenv import dotenv_values
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from jobbridge import django_settings
from jobbridge.core.keys import Engine
from jobbridge.core.status import JobStatus
from jobbridge.errors import ConfigurationError

DEV_FILE = Path(".jobbridge") / "dev.json"
DOTENV_FILE = Path(".env")
_ABOUT_SOURCES = {"sources", "overruled"}
#: Characters that a key must have: of 64 different ones, these are 192 bits.
_KEY_SIZE = 32
#: Of the broker and of the workflow, which know no settings: `max_deliveries`, `MAX_LOST`.
DEFAULT_MAX_CRASHES = 5


class Settings(BaseModel):
    """What the environment says, typed. Unset and default are different: see `sources`."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    database_url: str | None = Field(None, validation_alias="DATABASE_URL")
    database_schema: str | None = Field(None, validation_alias="JOBBRIDGE_SCHEMA")
    join_transactions: bool = Field(True, validation_alias="JOBBRIDGE_JOIN_TRANSACTIONS")
    edition: Literal["community", "enterprise"] = Field("community", validation_alias="EDITION")
    job_runner_type: Engine | None = Field(None, validation_alias="JOB_RUNNER_TYPE")
    fallback_to_celery: bool = Field(
        True, validation_alias=AliasChoices("JOB_RUNNER_FALLBACK_TO_CELERY", "JOB_RUNNER_FALLBACK_TO_PGBOSS")
    )
    init_failure_backoff_ms: int = Field(60_000, ge=0, validation_alias="JOB_RUNNER_INIT_FAILURE_BACKOFF_MS")
    temporal_address: str = Field(
        "temporal-frontend.temporal.svc.cluster.local:7233", validation_alias="TEMPORAL_ADDRESS"
    )
    temporal_namespace: str = Field("default", validation_alias="TEMPORAL_NAMESPACE")
    temporal_job_task_queue: str = Field("alga-jobs", validation_alias="TEMPORAL_JOB_TASK_QUEUE")
    temporal_light: bool = Field(False, validation_alias="TEMPORAL_LIGHT")
    temporal_api_key: SecretStr | None = Field(None, validation_alias="TEMPORAL_API_KEY")
    temporal_tls: bool = Field(False, validation_alias="TEMPORAL_TLS")
    temporal_tls_server_ca_cert: Path | None = Field(
        None, validation_alias="TEMPORAL_TLS_SERVER_CA_CERT_PATH"
    )
    temporal_tls_client_cert: Path | None = Field(None, validation_alias="TEMPORAL_TLS_CLIENT_CERT_PATH")
    temporal_tls_client_key: Path | None = Field(None, validation_alias="TEMPORAL_TLS_CLIENT_KEY_PATH")
    temporal_ui_url: str | None = Field(None, validation_alias="TEMPORAL_UI_URL")
    payload_limit_mb: float = Field(32.0, gt=0, le=256, validation_alias="JOB_RUNNER_PAYLOAD_LIMIT_MB")
    encryption_keys: SecretStr | None = Field(None, validation_alias="JOBBRIDGE_ENCRYPTION_KEYS")
    encryption_keys_file: Path | None = Field(None, validation_alias="JOBBRIDGE_ENCRYPTION_KEYS_FILE")
    max_crashes: int = Field(DEFAULT_MAX_CRASHES, ge=1, le=1000, validation_alias="JOB_RUNNER_MAX_CRASHES")
    secret_key: SecretStr | None = Field(None, validation_alias="JOBBRIDGE_SECRET_KEY")
    secret_key_file: Path | None = Field(None, validation_alias="JOBBRIDGE_SECRET_KEY_FILE")
    dashboard_url: str | None = Field(None, validation_alias="JOBBRIDGE_DASHBOARD_URL")
    tracing: bool = Field(False, validation_alias="JOB_RUNNER_TRACING")
    log_format: Literal["text", "json"] = Field("text", validation_alias="JOB_RUNNER_LOG_FORMAT")
    maintenance: bool = Field(True, validation_alias="JOB_RUNNER_MAINTENANCE")
    retention_completed_days: float | None = Field(
        None, gt=0, validation_alias="JOB_RUNNER_RETENTION_COMPLETED_DAYS"
    )
    retention_failed_days: float | None = Field(
        None, gt=0, validation_alias="JOB_RUNNER_RETENTION_FAILED_DAYS"
    )
    retention_other_days: float | None = Field(None, gt=0, validation_alias="JOB_RUNNER_RETENTION_OTHER_DAYS")
    smtp_url: str = Field("smtp://127.0.0.1:25", validation_alias="SMTP_URL")
    mail_from: str = Field("billing@localhost", validation_alias="MAIL_FROM")
    calendar_secrets_dir: Path | None = Field(None, validation_alias="CALENDAR_SECRETS_DIR")
    calendar_webhook_url: str | None = Field(None, validation_alias="CALENDAR_WEBHOOK_URL")
    microsoft_graph_url: str = Field(
        "https://graph.microsoft.com/v1.0", validation_alias="MICROSOFT_GRAPH_URL"
    )
    microsoft_login_url: str = Field(
        "https://login.microsoftonline.com", validation_alias="MICROSOFT_LOGIN_URL"
    )
    google_calendar_url: str = Field(
        "https://www.googleapis.com/calendar/v3", validation_alias="GOOGLE_CALENDAR_URL"
    )
    google_token_url: str = Field("https://oauth2.googleapis.com/token", validation_alias="GOOGLE_TOKEN_URL")

    #: Field name → where its value came from: `environment NAME`, `.env NAME`, `.jobbridge/dev.json NAME`,
    #: `argument` or `default`.
    sources: dict[str, str] = Field(default_factory=dict, exclude=True)

    #: Field name → what other sources say otherwise, and do not win: `.env EDITION` → `enterprise`.
    overruled: dict[str, dict[str, str]] = Field(default_factory=dict, exclude=True)

    @field_validator("job_runner_type", mode="before")
    @classmethod
    def _read_engine(cls, value: object) -> object:
        try:
            return Engine.parse(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError(f"it must be one of {', '.join(Engine)}") from None

    @field_validator("dashboard_url")
    @classmethod
    def _check_dashboard_url(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^/?#]+(/[^?#]*)?$", value):
            raise ValueError("it must be an address such as https://jobs.example.com/ops")
        return value

    @property
    def engine(self) -> Engine:
        """The engine of messages that name none: JOB_RUNNER_TYPE, else what the edition says."""
        if self.job_runner_type is not None:
            return self.job_runner_type
        return Engine.TEMPORAL if self.edition == "enterprise" else Engine.CELERY

    @property
    def retention(self) -> dict[JobStatus, timedelta]:
        """How long jobs are kept after their end, by status; a status that is not in it is kept for ever."""
        days = {
            JobStatus.COMPLETED: self.retention_completed_days,
            JobStatus.FAILED: self.retention_failed_days,
            JobStatus.CANCELLED: self.retention_other_days,
            JobStatus.EXPIRED: self.retention_other_days,
            JobStatus.SKIPPED: self.retention_other_days,
        }
        return {status: timedelta(days=number) for status, number in days.items() if number is not None}

    def secret_keys(self) -> tuple[str, ...]:
        """Give what the dashboard signs with, the newest first; none: nothing is set. A file is read each time.

        Raises:
            ConfigurationError: One is too short to be a secret, or the file cannot be read or has none.
        """
        if self.secret_key is not None:
            return _keys_of(self.secret_key.get_secret_value(), "JOBBRIDGE_SECRET_KEY")
        if self.secret_key_file is None:
            return ()
        hint = "Write 32 random characters or more into it, and let nobody else read it."
        text = _read(self.secret_key_file, "JOBBRIDGE_SECRET_KEY_FILE", hint=hint)
        return _keys_of(text, f"JOBBRIDGE_SECRET_KEY_FILE, {self.secret_key_file},")

    def encryption_text(self) -> str | None:
        """Give the keys by which arguments and results are encrypted, `id:base64,…`; None: nothing is.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        if self.encryption_keys is not None:
            return self.encryption_keys.get_secret_value()
        if self.encryption_keys_file is None:
            return None
        hint = "Write id:key into it, a line for each, and let nobody else read it."
        return _read(self.encryption_keys_file, "JOBBRIDGE_ENCRYPTION_KEYS_FILE", hint=hint)

    @cached_property
    def payload_limit(self) -> int:
        """The most bytes of one message, or one result."""
        return int(self.payload_limit_mb * 1_000_000)

    @property
    def init_failure_backoff(self) -> timedelta:
        return timedelta(milliseconds=self.init_failure_backoff_ms)


def load_settings(environment: Mapping[str, str] | None = None, /, **arguments: Any) -> Settings:
    """Read the settings now.

    Args:
        environment: Instead of the process's own.
        arguments: Field values that win over every other source.

    Raises:
        ConfigurationError: A value does not fit; names the variable, the value's source, and what is allowed.
    """
    if environment is None:
        django_settings.load(os.environ.get("DJANGO_SETTINGS_MODULE"))
    layers = _as_tested(
        [
            (os.environ if environment is None else environment, "environment"),
            (django_settings.given(_names_in_django()), f"Django's {django_settings.SETTING}"),
            (_dotenv(), str(DOTENV_FILE)),
            (_dev_servers(), str(DEV_FILE)),
            _djangos_database(),
        ]
    )
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    overruled: dict[str, dict[str, str]] = {}
    for field, info in Settings.model_fields.items():
        if field in _ABOUT_SOURCES:
            continue
        found = _find(_names(info), layers)
        if field in arguments:
            values[field], sources[field] = arguments[field], "argument"
        elif not found:
            sources[field] = "default"
        else:
            values[field], sources[field] = found[0]
        others = {source: value for value, source in found if value != str(values[field])}
        if others:
            overruled[field] = others
    if values.get("database_url"):
        values["database_url"] = in_schema(values["database_url"], values.get("database_schema"))
    try:
        return Settings(**values, sources=sources, overruled=overruled)
    except ValidationError as error:
        raise _explained(error, sources) from None


def in_schema(url: str, schema: str | None) -> str:
    """Write into a database's URL, whatever its form, in which schema the job tables are.

    Args:
        url: Of the database; it may say so already. Who reads it refuses two that differ.
        schema: None: nobody has said anything else than what the URL says.
    """
    if schema is None:
        return url
    if "://" not in url:
        return f"{url} schema={schema}"
    return f"{url}{'&' if '?' in url else '?'}schema={quote(schema)}"


def is_secret(field: str) -> bool:
    """Tell whether a setting's value is for nobody's eyes."""
    return "SecretStr" in str(Settings.model_fields[field].annotation)


def _read(path: Path, name: str, *, hint: str) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{name}, {path}, cannot be read: {error}.", hint=hint) from None


def _keys_of(text: str, source: str) -> tuple[str, ...]:
    keys = tuple(re.split(r"[\s,]+", text.strip()))
    if any(len(key) < _KEY_SIZE for key in keys):
        raise ConfigurationError(
            f"{source} has a key of less than {_KEY_SIZE} characters.",
            hint="Take random ones: `python -c 'import secrets; print(secrets.token_urlsafe(32))'`. Several, of which "
            "the first one signs, are parted by a comma or a line's end.",
        )
    return keys


def _explained(error: ValidationError, sources: Mapping[str, str]) -> ConfigurationError:
    problem = error.errors()[0]
    location = str(problem["loc"][0])
    field = next(
        (name for name, info in Settings.model_fields.items() if location in {name, *_names(info)}), location
    )
    source = sources.get(field, "unknown source")
    message = problem["msg"].removeprefix("Value error, ")
    value = "secret" if field in Settings.model_fields and is_secret(field) else repr(problem["input"])
    return ConfigurationError(
        f"The setting {location} ({source}) is {value}: {message}.",
        hint=f"Correct it, or remove it ({source}).",
    )


def _find(names: list[str], layers: list[tuple[Mapping[str, str], str]]) -> list[tuple[str, str]]:
    """Give the values among the layers, the first one wins, and where each stands. An empty one counts as unset.

    Files and secrets end with a newline that nobody meant.
    """
    return [
        (
            value,
            origin if origin.endswith("]") else f"{origin} {name}",
        )  # one of DATABASES has no name of ours
        for layer, origin in layers
        for name in names
        if (value := layer.get(name, "").strip())
    ]


def _names_in_django() -> dict[str, str]:
    """Give what each setting may be called in `JOBBRIDGE`: as in the environment, without prefix, as a field."""
    known: dict[str, str] = {}
    for field, info in Settings.model_fields.items():
        if field in _ABOUT_SOURCES:
            continue
        for name in _names(info):
            known |= {field.upper(): name, name.removeprefix("JOBBRIDGE_"): name, name: name}
    return known


def _djangos_database() -> tuple[dict[str, str], str]:
    url = django_settings.database_url()
    origin = f'Django\'s DATABASES["{django_settings.alias()}"]'
    return ({} if url is None else {"DATABASE_URL": url}), origin


def _as_tested(layers: list[tuple[Mapping[str, str], str]]) -> list[tuple[Mapping[str, str], str]]:
    """While Django's tests run, take its test database for the one that the other sources name."""
    if not django_settings.is_moved():
        return layers
    return [
        (
            {key: value for key, value in layer.items() if key != "DATABASE_URL"}
            if origin == str(DEV_FILE) or django_settings.is_configured(layer.get("DATABASE_URL", "").strip())
            else layer,
            origin,
        )
        for layer, origin in layers
    ]


def _names(info: Any) -> list[str]:
    alias = info.validation_alias
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]


def _dotenv() -> dict[str, str]:
    if not DOTENV_FILE.is_file():
        return {}
    return {name: value for name, value in dotenv_values(DOTENV_FILE).items() if value is not None}


def _dev_servers() -> dict[str, str]:
    try:
        document = json.loads(DEV_FILE.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(document, dict) or not _is_alive(document.pop("pid", None)):
        return {}
    return {str(name): str(value) for name, value in document.items()}


def _is_alive(pid: object) -> bool:
    """Tell whether that process runs; one that was killed could not take its file away."""
    if not isinstance(pid, int):
        return True  # written by hand
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
