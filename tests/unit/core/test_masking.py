"""Secrets are masked by name and by look, in data and in texts; the rest of a text stays."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from jobbridge.core.masking import MASK, masked, without_passwords

HIDDEN = "hunter2-long-enough"


@pytest.mark.parametrize(
    "data",
    [
        {"password": HIDDEN},
        {"headers": {"X-API-Key": HIDDEN, "x-auth": HIDDEN}},
        {"aws": {"accessKey": HIDDEN, "secretAccessKey": HIDDEN}},
        {"smtp_pass": HIDDEN, "smtpPass": HIDDEN, "db_pwd": HIDDEN, "SENTRY_DSN": HIDDEN},
        {"list": [{"deep": [{"token": [HIDDEN]}]}]},
        {"headers": [["Authorization", f"Bearer {HIDDEN}"], {"name": "Cookie", "value": HIDDEN}]},
        {"url": f"postgres://u:{HIDDEN}@host/db", "broken": f"amqp://u:p@{HIDDEN}@host"},
        {"callback": f"https://shop.example/x?api_key={HIDDEN}&page=1"},
        {"text": json.dumps({"client_secret": HIDDEN})},
    ],
    ids=range(9),
)
def test_secrets_in_data_are_masked(data: Any) -> None:
    shown = json.dumps(masked(data), ensure_ascii=False)

    assert HIDDEN not in shown
    assert MASK in shown


@pytest.mark.parametrize(
    "text",
    [
        f"OperationalError: host=db password={HIDDEN} dbname=x",
        f"ValidationError: input_value={{'user': 'ada', 'password': '{HIDDEN}'}}",
        f"""KeyError: {{"api_key": "it's\\"{HIDDEN}"}}""",
        json.dumps(json.dumps({"token": HIDDEN})),
        f"connect(host='h', password='{HIDDEN}', port=1)",
        f"401 for https://api.example/v1?access_key={HIDDEN}&x=1",
        f"sent Authorization: Basic {HIDDEN}",
        f"curl -H 'X-API-Key: {HIDDEN}'",
        f"redis://:{HIDDEN}@cache",
        f"jbt_{HIDDEN * 2}",
    ],
    ids=range(10),
)
def test_secrets_in_texts_are_masked(text: str) -> None:
    shown = without_passwords(f"first line\n{text}\nlast line")

    assert HIDDEN not in shown
    assert shown.startswith("first line\n")
    assert shown.endswith("\nlast line")


@pytest.mark.parametrize(
    "text",
    [
        "JSONDecodeError: Unexpected token: x",
        "TypeError: token=None",
        "if password==other: pass",
        "Bearer token is missing",
        "https://shop.example:8080/a b@c",
        "password authentication failed for user 'ada'",
    ],
)
def test_what_only_talks_of_secrets_is_left(text: str) -> None:
    assert without_passwords(text) == text


def test_harmless_names_are_left() -> None:
    data = {"key": "k", "author": "a", "compass": "c", "passed": 3, "monkey": "m", "name": "n", "value": "v"}
    assert masked(data) == data


@pytest.mark.parametrize(
    "part", ["token", "'token':'", "'", "\\", "://a:", "token=", "token='\\", "authorization: ", "bearer "]
)
def test_a_text_that_is_made_to_take_long_takes_no_longer(part: str) -> None:
    text = (part * 50_000)[:200_000] + "token"
    begun = time.process_time()

    without_passwords(text)

    assert time.process_time() - begun < 2
