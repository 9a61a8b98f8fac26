"""What `jobbridge demo` shows: the last day of October at an IT service provider, with all twelve handlers.

It bills its clients, archives the invoices and mails them; imports a list of devices, keeps its calendars'
notifications alive, and does what is due each day. The invoices are made one after another, because each takes the
next number: so the same clients get the same numbers on both engines, and the documents can be compared byte by byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from jobbridge.errors import JobBridgeError
from jobbridge.handlers.dataset import (
    ASSET_MAPPING,
    BILLABLE_CLIENTS,
    MONTH,
    NOON,
    TODAY,
    import_dataset,
    upload_devices,
)
from jobbridge.handlers.documents import content_of, documents_of
from jobbridge.handlers.files import ASSET_IMPORT_REPORT, files_of_kind, open_file
from jobbridge.handlers.invoicing.invoices import invoice_of_job

if TYPE_CHECKING:
    from jobbridge import Celery
    from jobbridge.core.keys import Engine
    from jobbridge.store.jobs.rows import JobRow

#: Called whenever a row has changed, with all jobs so far, oldest first.
OnUpdate = Callable[[Sequence["JobRow"]], None]

POLL_INTERVAL = 0.1  # seconds
JOB_DEADLINE = 120.0  # seconds, from sending to its end


#: What is due each day, in this order: one looks at what another has changed, and each of two may send mails.
DAILY = (
    "expired-credits",
    "expiring-credits-notification",
    "credit-reconciliation",
    "reconcile-bucket-usage",
)


class DemoStuck(JobBridgeError):
    """A job of the demo did not end in time."""

    hint = "Check that a worker of this engine runs and serves the job's queue; its log says more."


def run_scenario(
    app: Celery, engine: Engine, tenant: str, output_dir: Path, on_update: OnUpdate
) -> tuple[list[UUID], list[Path]]:
    """Import the data set, run the twelve handlers on one engine, write the documents to `output_dir`.

    A job that fails does not stop the demo: its row says why, and the caller looks at the rows.

    Returns:
        The jobs in the order in which they were sent, and the paths of the documents.

    Raises:
        NotMigrated: The tables are missing.
        DemoStuck: A job did not end in time.
    """
    with app.database.transaction() as connection:
        import_dataset(connection, tenant)
        devices = upload_devices(connection, tenant)
    scenario = _Scenario(app, engine, tenant, on_update)
    aside = [
        scenario.send("asset_import", {"fileId": str(devices.file_id), "mapping": ASSET_MAPPING}),
        scenario.send("renew-microsoft-calendar-webhooks", {}),
        scenario.send("verify-google-calendar-pubsub", {}),
        scenario.send("cleanup-temporary-workflow-forms", {"asOf": NOON.isoformat()}),
        scenario.send("cleanup-ai-session-keys", {"asOf": NOON.isoformat()}),
    ]
    _bill(scenario)
    for name in DAILY:
        scenario.wait_for(scenario.send(name, {"asOf": TODAY.isoformat()}))
    scenario.wait_for(*aside)
    return scenario.job_ids, _export(app, tenant, output_dir)


def _bill(scenario: _Scenario) -> None:
    window = {"periodStart": MONTH.start.isoformat(), "periodEnd": MONTH.end.isoformat()}
    for client_id in BILLABLE_CLIENTS:
        scenario.wait_for(scenario.send("generate-invoice", {"clientId": client_id, **window}))
    invoice_ids = scenario.invoice_ids()
    if invoice_ids:
        archive = scenario.send("invoice_zip", {"invoiceIds": invoice_ids})
        mails = scenario.send("invoice_email", {"invoiceIds": invoice_ids})
        scenario.wait_for(archive, mails)


class _Scenario:
    def __init__(self, app: Celery, engine: Engine, tenant: str, on_update: OnUpdate) -> None:
        self._app, self._engine, self._tenant, self._on_update = app, engine, tenant, on_update
        self._rows: dict[UUID, JobRow] = {}
        self.job_ids: list[UUID] = []

    def send(self, name: str, data: dict[str, Any]) -> UUID:
        handle = self._app.enqueue(
            name, {"tenantId": self._tenant, **data}, tenant=self._tenant, engine=self._engine
        )
        self.job_ids.append(handle.job_id)
        return handle.job_id

    def wait_for(self, *job_ids: UUID) -> None:
        deadline = time.monotonic() + JOB_DEADLINE
        while not self._have_ended(job_ids):
            if time.monotonic() > deadline:
                raise DemoStuck(f"After {JOB_DEADLINE:g} s, {self._described(job_ids)}.")
            time.sleep(POLL_INTERVAL)

    def invoice_ids(self) -> list[str]:
        with self._app.database.transaction() as connection:
            found = [invoice_of_job(connection, self._tenant, str(job_id)) for job_id in self.job_ids]
        return [str(invoice.invoice_id) for invoice in found if invoice is not None]

    def _have_ended(self, job_ids: Sequence[UUID]) -> bool:
        before = dict(self._rows)
        for job_id in job_ids:
            row = self._app.jobs.find(job_id)
            if row is not None:
                self._rows[job_id] = row
        if self._rows != before:
            self._on_update([self._rows[job_id] for job_id in self.job_ids if job_id in self._rows])
        return all(job_id in self._rows and self._rows[job_id].status.is_final for job_id in job_ids)

    def _described(self, job_ids: Sequence[UUID]) -> str:
        rows = (self._rows[job_id] for job_id in job_ids if job_id in self._rows)
        waiting = [f"{row.type} is still {row.status}" for row in rows if not row.status.is_final]
        return ", ".join(waiting) or "a job has no row"


def _export(app: Celery, tenant: str, folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with app.database.transaction() as connection:
        for document in documents_of(connection, tenant):
            path = folder / document.name
            path.write_bytes(content_of(connection, tenant, document.document_id))
            paths.append(path)
        reports = files_of_kind(connection, tenant, ASSET_IMPORT_REPORT)
    for report in reports:
        path = folder / report.name
        with open_file(app.database.transaction, tenant, report) as content:
            path.write_bytes(content.read())
        paths.append(path)
    return paths
