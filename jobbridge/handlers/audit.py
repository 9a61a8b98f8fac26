"""`psa.audit_log`: what jobs changed by themselves, written in the transaction that changes it."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg.types.json import Jsonb

from jobbridge.handlers.sql import Connection, run

WRITE = """
INSERT INTO psa.audit_log (tenant, job_id, action, subject_id, detail)
VALUES (%(tenant)s, %(job_id)s, %(action)s, %(subject_id)s, %(detail)s)
"""


def write_entry(
    connection: Connection,
    tenant: str,
    *,
    job_id: str,
    action: str,
    subject_id: str,
    detail: Mapping[str, object],
) -> None:
    """Write an entry; `detail` is JSON, amounts as text."""
    parameters = {"tenant": tenant, "job_id": job_id, "action": action, "subject_id": subject_id}
    run(connection, WRITE, parameters | {"detail": Jsonb(dict(detail))})
