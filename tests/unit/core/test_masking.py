"""Secrets are masked by name and by look, in data and in texts; the rest of a text stays."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from jobbridge.core.masking.values import MASK, masked, without_passwords

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
        {
            "cookies": {"sid": HIDDEN},
            "jwt": HIDDEN,
            "session_id": HIDDEN,
            "AccountKey": HIDDEN,
            "otp": HIDDEN,
        },
        {"headers": [["Cookie", f"sid={HIDDEN}"], ["Set-Cookie", HIDDEN]]},
        {f"Bearer {HIDDEN}": 1},
        {"Environment": [{"Name": "DB_PASSWORD", "Value": HIDDEN}], "bearer": HIDDEN},
    ],
    ids=range(13),
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


#: Too short to be told by its length.
SHORT = "hun7er"
PEM = "\n".join(["MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "BKcwggSjAgEAAoIBAQ" + "C7" * 9, "Kx=="])


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SHORT}",
        f"authorization=Bearer {SHORT}",
        f"authorization = 'Bearer {SHORT}'",
        f"Authorization={SHORT}",
        f"Proxy-Authorization: Basic {SHORT}==",
        f"authorization: ApiKey {SHORT}",
        f'Authorization: Digest username="ada", realm="x", response="{SHORT}"',
        f"Authorization: AWS4-HMAC-SHA256 Credential=AKIA/x, SignedHeaders=host, Signature={SHORT}",
        f"{{'Authorization': 'Token {SHORT}'}}",
        f"b'authorization': b'Bearer {SHORT}'",
        f"request had bearer {SHORT}, refused",
        f"<Request headers=(('bearer {SHORT}',))>",
        f"Cookie: theme=dark; sid={SHORT}; x=1",
        f"Set-Cookie: sid={SHORT}; Path=/; HttpOnly",
        f"curl -H 'Cookie: sid={SHORT}' https://shop.example",
        f"{{'cookies': {{'sid': '{SHORT}'}}}}",
        f"get(url, cookies={{'sid': '{SHORT}'}})",
        f"<RequestsCookieJar[<Cookie sid={SHORT} for .shop.example/>]>",
        f"passwd: {SHORT}",
        f"login failed (user: ada, passwd: {SHORT})",
        f"  db_password: correct horse {SHORT}",
        f"DB_PASSWORD: {SHORT}",
        f"- secret_key: {SHORT}",
        f"access_token: {SHORT}",
        f"x-api-key: {SHORT}",
        f"password = {SHORT}",
        f"password => '{SHORT}'",
        f"smtp_pass={SHORT}",
        f"{{'password': b'{SHORT}', 'n': 1}}",
        "{'password': 123456789, 'n': 1}".replace("123456789", f"12{SHORT}"),
        f"requests.get(url, auth=('ada', '{SHORT}'))",
        f"auth=HTTPBasicAuth('ada', '{SHORT}')",
        f"mysql --password {SHORT} --host db",
        f"curl -u ada:{SHORT} https://shop.example",
        f"ALTER ROLE ada PASSWORD '{SHORT}'",
        f"DefaultEndpointsProtocol=https;AccountKey={SHORT};EndpointSuffix=x",
        f"https://store.example/f?sv=1&sig={SHORT}%3D&se=2",
        f"https://s3.example/f?X-Amz-Signature={SHORT}",
        f"https://{SHORT}-and-more@sentry.example/4",
        f"GET /callback?code={SHORT}",
        f"X-Amz-Signature={SHORT}",
        f"<db:password kind='x'>{SHORT}</db:password>",
        f"""ken": 1, "refresh_token": "{SHORT}", "client_secre""".removeprefix('ken": 1, "'),
        f"[['x-api-key', '{SHORT}'], ('Authorization', '{SHORT}')]",
        f"user%3Dada%26password%3D{SHORT}%26x",
        f"password:{SHORT}",
        f"Password : {SHORT}",
        f"password\t{SHORT}",
        f"the password is {SHORT}, they say",
        f"machine h login ada password {SHORT}",
        f"sshpass -p {SHORT} ssh host",
        f"mysql -h db -u ada -p{SHORT} shop",
        f"CREATE USER ada IDENTIFIED BY {SHORT};",
        f"ALTER ROLE ada PASSWORD $${SHORT}$$",
        f"PHPSESSID={SHORT}",
        f"pw={SHORT}",
    ],
)
def test_short_secrets_in_texts_are_masked(text: str) -> None:
    shown = without_passwords(f"first line\n{text}\nlast line")

    assert SHORT not in shown
    assert shown.startswith("first line\n")
    assert shown.endswith("\nlast line")


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "ENCRYPTED ", "OPENSSH "])
@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("is_escaped", [False, True])
def test_private_keys_are_masked(kind: str, is_cut: bool, is_escaped: bool) -> None:
    end = "" if is_cut else f"\n-----END {kind}PRIVATE KEY-----\nlast line"
    text = f"first line\n-----BEGIN {kind}PRIVATE KEY-----\n{PEM}{end}"

    shown = without_passwords(text.replace("\n", "\\n") if is_escaped else text)

    assert not [line for line in PEM.splitlines() if line in shown]
    assert shown.startswith("first line")
    assert is_cut or shown.endswith("last line")


@pytest.mark.parametrize(
    ("begin", "rest"),
    [
        ("eyJ", "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dBjftJeZ4CVP"),
        ("ghp_", "x1" * 18),
        ("github_pat_", "x1" * 30),
        ("glpat-", "x1" * 10),
        ("xoxb-", "1234567890-abcdefghij"),
        ("hooks.slack.com/services/", "T0000/B0000/" + "x1" * 12),
        ("sk_live_", "x1" * 12),
        ("AKIA", "Q3EGAAAABBBBCCCC"),
        ("AIza", "x1" * 17 + "x"),
        ("SG.", "x1" * 11 + "." + "x1" * 20),
        ("npm_", "x1" * 18),
        ("pypi-", "AgEIcHlwaS5vcmc" + "x1" * 20),
        ("sk-ant-", "x1" * 20),
        ("hvs.", "x1" * 12),
        ("dop_v1_", "0a" * 32),
        ("123456789:AA", "x1" * 17),
        ("dckr_pat_", "x1" * 14),
        ("hf_", "x1" * 17),
        ("sntrys_", "x1" * 20),
    ],
)
def test_tokens_are_known_by_their_shape(begin: str, rest: str) -> None:
    shown = without_passwords(f"first {begin}{rest} last")

    assert rest[4:] not in shown
    assert shown.startswith("first ")
    assert shown.endswith(" last")


@pytest.mark.parametrize(
    "text",
    [
        "JSONDecodeError: Unexpected token: x",
        "the fields ('password', 'email') are needed",
        "<TokenError at 0x7f3c> was raised",
        "password must have 8 to 20 characters",
        "the secret is out",
        "mysql -h db -u ada shop",
        "https://shop.example/list?key=name&x=1",
        "TypeError: token=None",
        "if password==other: pass",
        "Bearer token is missing",
        "https://shop.example:8080/a b@c",
        "password authentication failed for user 'ada'",
        "jwt.exceptions.InvalidTokenError: Not enough segments",
        "PasswordTooShortError: choose at least 12 characters",
        "botocore.exceptions.NoCredentialsError: Unable to locate credentials",
        "WWW-Authenticate: Bearer realm=x",
        "the bearer of this is welcome",
        "has_password=True, cookie=None",
        "Basic authentication is not supported",
        "author: Ada, tokens: 512, keyboard: de",
        "https://ada@host.example/x",
        "task-skeleton-of-a-basic-thing",
        "2026-11-30 12:00:00 INFO shop: sent 3 of 4",
    ],
)
def test_what_only_talks_of_secrets_is_left(text: str) -> None:
    assert without_passwords(text) == text


def test_harmless_names_are_left() -> None:
    data = {"key": "k", "author": "a", "compass": "c", "passed": 3, "monkey": "m", "name": "n", "value": "v"}
    assert masked(data) == data


@pytest.mark.parametrize(
    "part",
    [
        "token",
        "'token':'",
        "'",
        "\\",
        "://a:",
        "token=",
        "token='\\",
        "authorization: ",
        "bearer ",
        "cookie: a",
        "-----BEGIN PRIVATE KEY-----",
        "password: ",
        "auth=(",
        "--token ",
        "a-",
        "eyJ",
        "eyJaaaaaaaa.",
        "<cookie ",
        "pass",
        " -u a",
        "\npassword:",
        "'auth': (",
        "<token>",
        "['token', '",
        "token%3D",
        "password is ",
        "sshpass -p ",
        "mysql a ",
    ],
)
def test_a_text_that_is_made_to_take_long_takes_no_longer(part: str) -> None:
    text = (part * 50_000)[:200_000] + "token"
    begun = time.process_time()

    without_passwords(text)

    assert time.process_time() - begun < 2
