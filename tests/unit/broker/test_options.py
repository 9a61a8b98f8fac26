"""Transport options: ours, SQLAlchemy's, and those that nobody knows."""

from __future__ import annotations

import logging
import re
import uuid
from pathlib import Path
from typing import Any

import kombu
import pytest
from kombu import Connection

from jobbridge.broker import foreign_options, register
from jobbridge.broker.errors import InvalidOption
from jobbridge.broker.options import OWN, UNLIMITED, Options

register()


def transport_with(**options: Any) -> Any:
    return Connection("jobbridge+postgresql://ann@db/jobs", transport_options=options).transport


def test_defaults() -> None:
    options = Options.of({})

    assert (options.max_deliveries, options.poll_interval, options.sweep_interval) == (5, 60.0, 3.5)
    assert options.engine == {}


def test_no_limit_of_deliveries() -> None:
    assert Options.of({"max_deliveries": 0}).deliveries_allowed == UNLIMITED


def test_options_of_create_engine_reach_it() -> None:
    engine = transport_with(echo=True, pool_recycle=77, max_deliveries=2).engine

    assert engine.echo is True
    assert engine.pool._recycle == 77


def test_what_kombu_writes_into_the_options_is_left_out() -> None:
    # `Producer.publish(retry=True)` puts its retry policy there.
    assert transport_with(max_retries=3, interval_start=0, interval_step=0.2, interval_max=1).engine


def test_a_misspelt_option_names_the_nearest() -> None:
    with pytest.raises(InvalidOption, match=r"'max_delivery' is not known\. Did you mean 'max_deliveries'\?"):
        _ = transport_with(max_delivery=3).engine


def test_what_is_left_over_from_another_broker_is_told_once_and_ignored(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_options, "_told", set())
    # Other tests of this process have configured the logs of all that was imported by then.
    monkeypatch.setattr(foreign_options, "logger", logging.getLogger(f"test.{uuid.uuid4().hex}"))
    caplog.set_level(logging.WARNING)
    left_over = {
        "visibility_timeout": 3600,
        "master_name": "main",
        "fanout_prefix": True,
        "socket_timeout": 5,
        "confirm_publish": True,
        "predefined_queues": {},
        "region": "eu-central-1",
        "echo": False,
    }
    for _ in range(2):
        assert transport_with(**left_over).engine.echo is False

    told = [record.getMessage() for record in caplog.records]
    assert len(told) == len(left_over) - 2  # kombu reads confirm_publish itself, and echo is SQLAlchemy's
    assert any("'visibility_timeout' is for Redis" in each for each in told)


#: What kombu's transports read of options by other ways than `transport_options`, or is no option.
_NO_OPTIONS = {"default_hostname", "default_port", "port", "body_encoding"}


def test_all_that_kombus_own_transports_read_is_known() -> None:
    """An app that came from any of them has its options left over; the installed kombu says which there are."""
    asked = re.compile(r"""transport_options(?:\.get|\.pop)?[(\[]\s*['"]([\w-]+)['"]""")
    listed = re.compile(r"from_transport_options\s*=[^()]*\(([^()]*)\)")
    read: set[str] = set()
    for path in (Path(kombu.__file__).parent / "transport").rglob("*.py"):
        source = path.read_text()
        read |= set(asked.findall(source))
        for names in listed.findall(source):
            read |= set(re.findall(r"'(\w+)'", names))

    assert len(read) > 50, "they are found"
    unknown = {name for name in read - _NO_OPTIONS if Options.of({name: 1} if name not in OWN else {}).engine}
    assert unknown <= {"pool_size", "pool_timeout"}, "these two are SQLAlchemy's, too"


def test_a_misspelt_option_of_another_broker_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"Did you mean 'visibility_timeout'\?"):
        _ = transport_with(visibilty_timeout=3600).engine


@pytest.mark.parametrize(
    "given", [{"max_deliveries": -1}, {"max_deliveries": "5"}, {"poll_interval": 0}, {"sweep_interval": 61}]
)
def test_values_out_of_range_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(given))):
        Options.of(given)
