"""An application's own workflows and activities, as the tests serve them beside jobs."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow

from jobbridge import UserQueue
from tests.integration.temporal.tasks import make_app


def _note(name: str) -> int:
    path = Path(os.environ["PARITY_FOLDER"]) / name
    with path.open("a") as file:
        file.write(f"{threading.current_thread().name}\n")
    return len(path.read_text().splitlines())


@activity.defn
async def create_tenant(name: str) -> str:
    _note("create_tenant")
    return f"tenant {name}"


@activity.defn(name="verify-domain")
def verify_domain(name: str) -> str:
    _note("verify_domain")
    return f"domain {name}"


class Mailer:
    """Its activity is a method, as in applications that give their activities a connection."""

    @activity.defn
    def welcome(self, name: str) -> str:
        return f"welcome {name}"


mailer = Mailer()
DOMAIN_ACTIVITIES = [verify_domain]


@workflow.defn
class TenantWorkflow:
    @workflow.run
    async def run(self, name: str) -> list[str]:
        limit = timedelta(seconds=20)
        return [
            await workflow.execute_activity(create_tenant, name, start_to_close_timeout=limit),
            await workflow.execute_activity(
                "verify-domain", name, task_queue="portal-domain-workflows", start_to_close_timeout=limit
            ),
            await workflow.execute_activity(
                "welcome", name, task_queue="email-domain-workflows", start_to_close_timeout=limit
            ),
        ]


app = make_app()
app.conf.temporal_workers = [
    UserQueue(
        "tenant-workflows",
        workflows=[f"{__name__}:TenantWorkflow"],
        activities=[create_tenant],
        max_concurrent_activities=3,
        passthrough_modules=["tests"],
    ),
    UserQueue("portal-domain-workflows", activities=[f"{__name__}:DOMAIN_ACTIVITIES"], activity_threads=2),
    UserQueue("email-domain-workflows", activities=[f"{__name__}:mailer.welcome"]),
    UserQueue("broken-workflows", workflows=["tests.integration.temporal.user_app_broken:BrokenWorkflow"]),
]
