"""What the pages take for granted. A module of a page's name runs before its Python; the rest is here."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Given:
    """What stands before the code of a page.

    Args:
        instead: Text of the page → what stands for it in a test.
        statements: SQL that is run before.
        commands: Commands that are typed before its own.
    """

    instead: dict[str, str] = field(default_factory=dict)
    statements: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


#: Of every page.
ALWAYS = {
    "your.app": "shop",
    "jobbridge dashboard -A": "jobbridge dashboard --port 0 -A",
    "curl ": "curl -fsS ",
}

_WORKER = "celery -A shop worker -c 1"
_A_JOB = (_WORKER, "python -c 'import shop; print(shop.done())' > job_id")
_A_TOKEN = "jobbridge tokens create docs --role operator --json | grep -o 'jbt_[^\"]*' > token"
_SOMEBODY = "00000000-0000-4000-8000-000000000001"

GIVEN = {
    "api.md": Given(
        {"https://jobs.example": "http://127.0.0.1:$PORT", "$TOKEN": "$(cat token)"},
        commands=(
            _A_TOKEN,
            "jobbridge dashboard --port $PORT",
        ),
    ),
    "dashboard-access.md": Given({"10.0.0.5": "127.0.0.1"}),
    "durable-jobs.md": Given(
        {"JOB_ID": "$(cat job_id)"},
        commands=(
            'python -c \'import shop; sent = shop.deliver.delay({"number": 1}); '
            'shop.app.send_event("approval", {"choice": "approve"}, job_id=sent.id); print(sent.id)\' > job_id',
        ),
    ),
    "encryption.md": Given(
        {
            "--port 8485": "--port $PORT",
            "127.0.0.1:8485": "127.0.0.1:$PORT",
            "jbt_…": "$(cat token)",
            "-w ID": "-w $(cat job_id)",
        },
        commands=(
            _A_TOKEN,
            "jobbridge temporal-worker -A shop -c 1",
            "python -c 'import shop; print(shop.done(engine=\"temporal\"))' > job_id",
        ),
    ),
    "engines.md": Given(
        {"0b5f4c1e-…": _SOMEBODY, '"…"': '"acme"', "{…}": '{"args": [8]}', "generate-invoice": "wait"},
        commands=("jobbridge temporal-worker -A shop -c 1",),
    ),
    "fan-out.md": Given(
        {"PARENT": "$(cat job_id)"},
        commands=(_WORKER, "python -c 'import shop; print(shop.parent())' > job_id"),
    ),
    "handlers.md": Given(commands=("touch devices.csv", "celery -A jobbridge worker -c 1")),
    "maintenance.md": Given({"'…'": f"'{_SOMEBODY}'"}),
    "schedules.md": Given({"your.app": "page"}),
    "schema.md": Given({"'…'": f"'{_SOMEBODY}'"}),
    "sending.md": Given({"range(1_000_000)": "range(2_000)", '"invoiceId": "…"': '"invoiceId": "1"'}),
    "tenancy.md": Given({"TENANT": "acme", "--service-role WORKERS": ""}),
    "troubleshooting.md": Given(
        {
            "JOB_ID": "$(cat job_id)",
            "TENANT": "acme",
            "external_id = '…'": "external_id = 'x'",
            "'…'": f"'{_SOMEBODY}'",
        },
        commands=_A_JOB,
    ),
}
