"""Credits and their ledger, notices and reports; business hours; temporary forms; AI session keys; an audit log.

`psa.credit_transactions` is the ledger: what it says is right. An account's balance and a credit's remaining amount
are kept beside it for those who read them often; `credit-reconciliation` compares. Whoever writes to a client's
credits locks the client's row in `psa.credit_accounts` first.
"""

from __future__ import annotations

from alembic import op

revision = "psa_0002_credits"
down_revision = "psa_0001"
branch_labels = None
depends_on = None

# business_days: 1 is Monday, as in ISO 8601.
PROVIDER_SETTINGS = """
ALTER TABLE psa.providers
    ADD COLUMN timezone           text NOT NULL DEFAULT 'UTC',
    ADD COLUMN business_days      integer[] NOT NULL DEFAULT '{1,2,3,4,5}'
        CHECK (business_days <@ '{1,2,3,4,5,6,7}'::integer[]),
    ADD COLUMN business_opens_at  time NOT NULL DEFAULT '08:00',
    ADD COLUMN business_closes_at time NOT NULL DEFAULT '18:00',
    ADD COLUMN credit_notice_days integer[] NOT NULL DEFAULT '{30,7,1}' CHECK (0 <= ALL (credit_notice_days)),
    ADD CHECK (business_closes_at > business_opens_at)
"""
AFTER_HOURS = """
ALTER TABLE psa.contract_lines
    ADD COLUMN after_hours_multiplier numeric(4, 2) NOT NULL DEFAULT 1 CHECK (after_hours_multiplier >= 1)
"""

CREDIT_ACCOUNTS = """
CREATE TABLE psa.credit_accounts (
    tenant    text NOT NULL,
    client_id text NOT NULL,
    balance   numeric(12, 2) NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, client_id),
    FOREIGN KEY (tenant, client_id) REFERENCES psa.clients (tenant, client_id)
)
"""

# expires_on: the last day on which it can be used; NULL: it does not expire.
CREDIT_TRACKING = """
CREATE TABLE psa.credit_tracking (
    tenant     text NOT NULL,
    credit_id  text NOT NULL,
    client_id  text NOT NULL,
    amount     numeric(12, 2) NOT NULL CHECK (amount > 0),
    remaining  numeric(12, 2) NOT NULL CHECK (remaining BETWEEN 0 AND amount),
    issued_on  date NOT NULL,
    expires_on date CHECK (expires_on >= issued_on),
    PRIMARY KEY (tenant, credit_id),
    FOREIGN KEY (tenant, client_id) REFERENCES psa.clients (tenant, client_id)
)
"""
CREDITS_TO_EXPIRE = """
CREATE INDEX credit_tracking_to_expire ON psa.credit_tracking (tenant, expires_on) WHERE remaining > 0
"""

# credit_id has no foreign key: a credit that is not tracked is one of the things that are looked for.
CREDIT_TRANSACTIONS = """
CREATE TABLE psa.credit_transactions (
    tenant         text NOT NULL,
    transaction_id text NOT NULL DEFAULT gen_random_uuid(),
    client_id      text NOT NULL,
    credit_id      text NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('issued', 'applied', 'returned', 'expired')),
    amount         numeric(12, 2) NOT NULL
        CHECK (amount <> 0 AND (amount > 0) = (kind IN ('issued', 'returned'))),
    occurred_on    date NOT NULL,
    note           text,
    job_id         text,
    created_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, transaction_id),
    FOREIGN KEY (tenant, client_id) REFERENCES psa.clients (tenant, client_id)
)
"""
TRANSACTIONS_BY_CLIENT = """
CREATE INDEX credit_transactions_by_client ON psa.credit_transactions (tenant, client_id, credit_id)
"""
TRANSACTIONS_BY_JOB = """
CREATE INDEX credit_transactions_by_job ON psa.credit_transactions (tenant, job_id) WHERE job_id IS NOT NULL
"""
# A credit is issued once.
TRANSACTION_OF_ISSUE = """
CREATE UNIQUE INDEX credit_transactions_of_issue ON psa.credit_transactions (tenant, credit_id) WHERE kind = 'issued'
"""

# subject_id: the client for a balance, else the credit. opened_by: the job that found it first.
CREDIT_REPORTS = """
CREATE TABLE psa.credit_reconciliation_reports (
    tenant      text NOT NULL,
    report_id   uuid NOT NULL DEFAULT gen_random_uuid(),
    client_id   text NOT NULL,
    kind        text NOT NULL
        CHECK (kind IN ('balance', 'tracking_missing', 'tracking_unfounded', 'amount', 'remaining')),
    subject_id  text NOT NULL,
    expected    numeric(12, 2) NOT NULL,
    actual      numeric(12, 2) NOT NULL,
    difference  numeric(12, 2) NOT NULL CHECK (difference = actual - expected),
    status      text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'resolved')),
    opened_on   date NOT NULL,
    opened_by   text NOT NULL,
    resolved_on date,
    resolved_by text,
    PRIMARY KEY (tenant, report_id),
    CHECK ((status = 'resolved') = (resolved_on IS NOT NULL)),
    FOREIGN KEY (tenant, client_id) REFERENCES psa.clients (tenant, client_id)
)
"""
# One open report for each discrepancy, whoever finds it.
OPEN_CREDIT_REPORT = """
CREATE UNIQUE INDEX credit_reports_open ON psa.credit_reconciliation_reports (tenant, kind, subject_id)
WHERE status = 'open'
"""
CREDIT_REPORTS_BY_CLIENT = """
CREATE INDEX credit_reports_by_client ON psa.credit_reconciliation_reports (tenant, client_id)
"""

# `covered`: a later notice about the same credit stands for it, so it needs no mail of its own.
CREDIT_NOTICES = """
CREATE TABLE psa.credit_notices (
    tenant      text NOT NULL,
    credit_id   text NOT NULL,
    days_before integer NOT NULL,
    status      text NOT NULL CHECK (status IN ('sending', 'sent', 'failed', 'uncertain', 'covered')),
    recipient   text NOT NULL,
    message_id  text NOT NULL,
    job_id      text NOT NULL,
    reply       text,
    claimed_at  timestamptz NOT NULL DEFAULT now(),
    settled_at  timestamptz,
    PRIMARY KEY (tenant, credit_id, days_before),
    FOREIGN KEY (tenant, credit_id) REFERENCES psa.credit_tracking (tenant, credit_id)
)
"""
CREDIT_NOTICES_BY_JOB = "CREATE INDEX credit_notices_by_job ON psa.credit_notices (tenant, job_id)"

FORM_DEFINITIONS = """
CREATE TABLE psa.workflow_form_definitions (
    tenant        text NOT NULL,
    definition_id text NOT NULL,
    name          text NOT NULL,
    fields        jsonb NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, definition_id)
)
"""
FORMS = """
CREATE TABLE psa.workflow_forms (
    tenant        text NOT NULL,
    form_id       text NOT NULL,
    definition_id text NOT NULL,
    is_temporary  boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, form_id),
    FOREIGN KEY (tenant, definition_id) REFERENCES psa.workflow_form_definitions (tenant, definition_id)
)
"""
TEMPORARY_FORMS = (
    "CREATE INDEX workflow_forms_temporary ON psa.workflow_forms (tenant, created_at) WHERE is_temporary"
)
FORMS_BY_DEFINITION = (
    "CREATE INDEX workflow_forms_by_definition ON psa.workflow_forms (tenant, definition_id)"
)

# The key itself is nowhere: its hash is enough to know it again.
AI_SESSION_KEYS = """
CREATE TABLE psa.ai_session_keys (
    tenant              text NOT NULL,
    key_id              text NOT NULL,
    user_name           text NOT NULL,
    key_sha256          text NOT NULL,
    expires_at          timestamptz NOT NULL,
    is_active           boolean NOT NULL DEFAULT true,
    deactivated_at      timestamptz,
    deactivation_reason text,
    PRIMARY KEY (tenant, key_id),
    CHECK (is_active = (deactivated_at IS NULL) AND is_active = (deactivation_reason IS NULL))
)
"""
ACTIVE_KEYS = (
    "CREATE INDEX ai_session_keys_active ON psa.ai_session_keys (tenant, expires_at) WHERE is_active"
)

AUDIT_LOG = """
CREATE TABLE psa.audit_log (
    tenant     text NOT NULL,
    entry_id   uuid NOT NULL DEFAULT gen_random_uuid(),
    job_id     text NOT NULL,
    action     text NOT NULL,
    subject_id text NOT NULL,
    detail     jsonb NOT NULL,
    written_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, entry_id)
)
"""
AUDIT_BY_SUBJECT = "CREATE INDEX audit_log_by_subject ON psa.audit_log (tenant, subject_id, written_at)"
# A job that goes over all tenants reads back what it did in each.
AUDIT_BY_JOB = "CREATE INDEX audit_log_by_job ON psa.audit_log (job_id, tenant)"

STATEMENTS = (
    PROVIDER_SETTINGS,
    AFTER_HOURS,
    CREDIT_ACCOUNTS,
    CREDIT_TRACKING,
    CREDITS_TO_EXPIRE,
    CREDIT_TRANSACTIONS,
    TRANSACTIONS_BY_CLIENT,
    TRANSACTIONS_BY_JOB,
    TRANSACTION_OF_ISSUE,
    CREDIT_REPORTS,
    OPEN_CREDIT_REPORT,
    CREDIT_REPORTS_BY_CLIENT,
    CREDIT_NOTICES,
    CREDIT_NOTICES_BY_JOB,
    FORM_DEFINITIONS,
    FORMS,
    TEMPORARY_FORMS,
    FORMS_BY_DEFINITION,
    AI_SESSION_KEYS,
    ACTIVE_KEYS,
    AUDIT_LOG,
    AUDIT_BY_SUBJECT,
    AUDIT_BY_JOB,
)

TABLES_LAST_FIRST = (
    "audit_log",
    "ai_session_keys",
    "workflow_forms",
    "workflow_form_definitions",
    "credit_notices",
    "credit_reconciliation_reports",
    "credit_transactions",
    "credit_tracking",
    "credit_accounts",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for table in TABLES_LAST_FIRST:
        op.execute(f"DROP TABLE psa.{table}")
    op.execute("ALTER TABLE psa.contract_lines DROP COLUMN after_hours_multiplier")
    op.execute("""
        ALTER TABLE psa.providers
            DROP COLUMN timezone,
            DROP COLUMN business_days,
            DROP COLUMN business_opens_at,
            DROP COLUMN business_closes_at,
            DROP COLUMN credit_notice_days
    """)
