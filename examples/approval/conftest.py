"""What workers, senders and the dashboard share: the key that links are signed with, and where the dashboard is."""

import os

import approval
import pytest

os.environ.setdefault("JOBBRIDGE_SECRET_KEY", "a-secret-of-32-characters-or-more")
os.environ.setdefault("JOBBRIDGE_DASHBOARD_URL", "https://jobs.example.com")


@pytest.fixture(autouse=True)
def outbox():
    approval.outbox.clear()
    return approval.outbox
