"""The tables of the original system, with rows in them."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg

TENANT = uuid.UUID("11111111-1111-4111-8111-111111111111")
USER = uuid.UUID("22222222-2222-4222-8222-222222222222")
STATUSES = ("pending", "processing", "completed", "failed", "active", "queued")

TENANTS = """
CREATE TABLE tenants (tenant uuid PRIMARY KEY);
INSERT INTO tenants VALUES ('11111111-1111-4111-8111-111111111111');
"""

JOBS = """
CREATE TYPE job_status AS ENUM ('pending', 'processing', 'completed', 'failed', 'active', 'queued');
CREATE TABLE jobs (
    tenant uuid NOT NULL REFERENCES tenants ON DELETE CASCADE,
    job_id uuid NOT NULL DEFAULT gen_random_uuid(),
    type varchar(255) NOT NULL,
    metadata jsonb,
    status job_status NOT NULL DEFAULT 'pending',
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now(),
    user_id uuid NOT NULL,
    PRIMARY KEY (tenant, job_id)
);
CREATE INDEX jobs_status_index ON jobs (tenant, status);
"""

RUNNER_COLUMNS = """
ALTER TABLE jobs
    ADD COLUMN runner_type varchar(50) DEFAULT 'pgboss',
    ADD COLUMN external_id varchar(255),
    ADD COLUMN external_run_id varchar(255);
"""

JOB_DETAILS = """
CREATE TABLE job_details (
    tenant uuid NOT NULL,
    detail_id uuid NOT NULL DEFAULT gen_random_uuid(),
    job_id uuid NOT NULL,
    step_name varchar(255) NOT NULL,
    status job_status NOT NULL,
    result jsonb,
    metadata jsonb,
    processed_at timestamptz,
    retry_count integer DEFAULT 0,
    updated_at timestamptz DEFAULT now(),
    PRIMARY KEY (tenant, detail_id),
    FOREIGN KEY (tenant, job_id) REFERENCES jobs (tenant, job_id) ON DELETE CASCADE
);
"""

ROWS = """
INSERT INTO jobs (tenant, job_id, type, metadata, status, created_at, updated_at, user_id)
SELECT %(tenant)s, gen_random_uuid(), 'invoice_email',
    CASE WHEN n %% 3 > 0 THEN jsonb_build_object('n', n) END,
    (%(statuses)s::job_status[])[1 + n %% 6],
    timestamptz '2024-01-01' + n * interval '1 second', timestamptz '2024-02-01' + n * interval '1 second', %(user)s
FROM generate_series(1, %(count)s) AS n
"""

DETAILS = """
INSERT INTO job_details (tenant, job_id, step_name, status, result, processed_at, updated_at)
SELECT tenant, job_id, 'step ' || part, status, '{"ok": true}', created_at + part * interval '1 minute', updated_at
FROM jobs, generate_series(1, 2) AS part
ORDER BY random()
"""


def create_originals(
    url: str, *, has_runner_columns: bool = True, jobs: int = 60, has_tenants: bool = True
) -> None:
    """Make the original's tables, with rows of each status."""
    with psycopg.connect(url) as connection:
        connection.execute(TENANTS)
        connection.execute(JOBS if has_tenants else JOBS.replace("REFERENCES tenants ON DELETE CASCADE", ""))
        if has_runner_columns:
            connection.execute(RUNNER_COLUMNS)
        connection.execute(JOB_DETAILS)
        values: dict[str, Any] = {
            "tenant": TENANT,
            "user": USER,
            "count": jobs,
            "statuses": list(STATUSES),
        }
        connection.execute(ROWS, values)
        connection.execute(DETAILS)
