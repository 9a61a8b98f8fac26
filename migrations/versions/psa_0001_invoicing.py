"""Clients, contracts, time, invoices, documents and outgoing mail of the PSA handlers.

A branch of its own: the handlers pack is an application of JobBridge, not a part of its core, and an
installation may leave it out (`alembic upgrade` of the core's heads only).

Every key contains the tenant. References inside a tenant are foreign keys without cascades. Amounts are numeric
with two decimals, rates with four.
"""

from __future__ import annotations

from alembic import op

revision = "psa_0001"
down_revision = None
branch_labels = ("psa",)
depends_on = None

PROVIDERS = """
CREATE TABLE psa.providers (
    tenant         text PRIMARY KEY,
    name           text NOT NULL,
    street         text NOT NULL,
    postal_code    text NOT NULL,
    city           text NOT NULL,
    country        text NOT NULL,
    email          text NOT NULL,
    phone          text NOT NULL,
    vat_number     text NOT NULL,
    iban           text NOT NULL,
    bic            text NOT NULL,
    currency       text NOT NULL CHECK (length(currency) = 3),
    invoice_prefix text NOT NULL
)
"""

CLIENTS = """
CREATE TABLE psa.clients (
    tenant             text NOT NULL,
    client_id          text NOT NULL,
    name               text NOT NULL,
    vat_number         text,
    tax_region         text NOT NULL,
    payment_days       integer NOT NULL DEFAULT 30 CHECK (payment_days >= 0),
    zero_amount_rule   text NOT NULL DEFAULT 'issue' CHECK (zero_amount_rule IN ('issue', 'suppress')),
    billing_contact_id text,
    billing_email      text,
    PRIMARY KEY (tenant, client_id)
)
"""

LOCATIONS = """
CREATE TABLE psa.client_locations (
    tenant      text NOT NULL,
    location_id text NOT NULL,
    client_id   text NOT NULL,
    is_billing  boolean NOT NULL DEFAULT false,
    is_default  boolean NOT NULL DEFAULT false,
    street      text,
    postal_code text,
    city        text,
    country     text,
    email       text,
    PRIMARY KEY (tenant, location_id),
    FOREIGN KEY (tenant, client_id) REFERENCES psa.clients (tenant, client_id)
)
"""

CONTACTS = """
CREATE TABLE psa.contacts (
    tenant     text NOT NULL,
    contact_id text NOT NULL,
    client_id  text NOT NULL,
    name       text NOT NULL,
    email      text,
    is_active  boolean NOT NULL DEFAULT true,
    PRIMARY KEY (tenant, contact_id),
    FOREIGN KEY (tenant, client_id) REFERENCES psa.clients (tenant, client_id)
)
"""

TAX_RATES = """
CREATE TABLE psa.tax_rates (
    tenant     text NOT NULL,
    tax_region text NOT NULL,
    tax_code   text NOT NULL,
    valid_from date NOT NULL,
    valid_to   date,
    name       text NOT NULL,
    percent    numeric(6, 3) NOT NULL CHECK (percent >= 0),
    PRIMARY KEY (tenant, tax_region, tax_code, valid_from)
)
"""

SERVICES = """
CREATE TABLE psa.services (
    tenant       text NOT NULL,
    service_id   text NOT NULL,
    name         text NOT NULL,
    unit         text NOT NULL,
    default_rate numeric(12, 4),
    tax_code     text NOT NULL,
    PRIMARY KEY (tenant, service_id)
)
"""

CONTRACTS = """
CREATE TABLE psa.contracts (
    tenant      text NOT NULL,
    contract_id text NOT NULL,
    client_id   text NOT NULL,
    name        text NOT NULL,
    starts_on   date NOT NULL,
    ends_on     date,
    PRIMARY KEY (tenant, contract_id),
    FOREIGN KEY (tenant, client_id) REFERENCES psa.clients (tenant, client_id)
)
"""

CONTRACT_LINES = """
CREATE TABLE psa.contract_lines (
    tenant           text NOT NULL,
    contract_line_id text NOT NULL,
    contract_id      text NOT NULL,
    service_id       text NOT NULL,
    position         integer NOT NULL,
    kind             text NOT NULL CHECK (kind IN ('fixed', 'hourly', 'bucket')),
    description      text,
    quantity         numeric(12, 2) NOT NULL DEFAULT 1,
    rate             numeric(12, 4),
    round_minutes_to integer NOT NULL DEFAULT 1 CHECK (round_minutes_to > 0),
    included_minutes integer NOT NULL DEFAULT 0 CHECK (included_minutes >= 0),
    overage_rate     numeric(12, 4),
    PRIMARY KEY (tenant, contract_line_id),
    FOREIGN KEY (tenant, contract_id) REFERENCES psa.contracts (tenant, contract_id),
    FOREIGN KEY (tenant, service_id) REFERENCES psa.services (tenant, service_id)
)
"""

BUCKET_USAGE = """
CREATE TABLE psa.bucket_usage (
    tenant              text NOT NULL,
    contract_line_id    text NOT NULL,
    period_start        date NOT NULL,
    period_end          date NOT NULL,
    included_minutes    integer NOT NULL,
    rolled_over_minutes integer NOT NULL DEFAULT 0,
    used_minutes        integer NOT NULL DEFAULT 0,
    overage_minutes     integer NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, contract_line_id, period_start),
    FOREIGN KEY (tenant, contract_line_id) REFERENCES psa.contract_lines (tenant, contract_line_id)
)
"""

INVOICE_COUNTERS = """
CREATE TABLE psa.invoice_counters (
    tenant      text PRIMARY KEY,
    last_number bigint NOT NULL
)
"""

# job_id: the job that made it. Its uniqueness is what makes a second run of that job find its own invoice.
INVOICES = """
CREATE TABLE psa.invoices (
    tenant       text NOT NULL,
    invoice_id   uuid NOT NULL DEFAULT gen_random_uuid(),
    number       text NOT NULL,
    job_id       text NOT NULL,
    client_id    text NOT NULL,
    status       text NOT NULL DEFAULT 'issued' CHECK (status IN ('issued', 'paid', 'void')),
    period_start date NOT NULL,
    period_end   date NOT NULL CHECK (period_end >= period_start),
    issued_on    date NOT NULL,
    due_on       date NOT NULL,
    currency     text NOT NULL,
    bill_to      text[] NOT NULL,
    subtotal     numeric(12, 2) NOT NULL,
    tax          numeric(12, 2) NOT NULL,
    total        numeric(12, 2) NOT NULL CHECK (total = subtotal + tax),
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, invoice_id),
    UNIQUE (tenant, number),
    UNIQUE (tenant, job_id),
    FOREIGN KEY (tenant, client_id) REFERENCES psa.clients (tenant, client_id)
)
"""

INVOICES_BY_CLIENT = "CREATE INDEX invoices_by_client ON psa.invoices (tenant, client_id, period_start)"

INVOICE_LINES = """
CREATE TABLE psa.invoice_lines (
    tenant           text NOT NULL,
    invoice_id       uuid NOT NULL,
    position         integer NOT NULL,
    contract_line_id text NOT NULL,
    description      text NOT NULL,
    unit             text NOT NULL,
    quantity         numeric(12, 2) NOT NULL,
    minutes          integer,
    rate             numeric(12, 4) NOT NULL,
    tax_name         text NOT NULL,
    tax_percent      numeric(6, 3) NOT NULL,
    net              numeric(12, 2) NOT NULL,
    PRIMARY KEY (tenant, invoice_id, position),
    FOREIGN KEY (tenant, invoice_id) REFERENCES psa.invoices (tenant, invoice_id)
)
"""

INVOICE_TAXES = """
CREATE TABLE psa.invoice_taxes (
    tenant      text NOT NULL,
    invoice_id  uuid NOT NULL,
    position    integer NOT NULL,
    tax_name    text NOT NULL,
    tax_percent numeric(6, 3) NOT NULL,
    taxable     numeric(12, 2) NOT NULL,
    tax         numeric(12, 2) NOT NULL,
    PRIMARY KEY (tenant, invoice_id, position),
    FOREIGN KEY (tenant, invoice_id) REFERENCES psa.invoices (tenant, invoice_id)
)
"""

TIME_ENTRIES = """
CREATE TABLE psa.time_entries (
    tenant      text NOT NULL,
    entry_id    text NOT NULL,
    client_id   text NOT NULL,
    service_id  text NOT NULL,
    work_date   date NOT NULL,
    started_at  timestamptz NOT NULL,
    minutes     integer NOT NULL CHECK (minutes > 0),
    technician  text NOT NULL,
    ticket      text NOT NULL,
    note        text NOT NULL,
    is_billable boolean NOT NULL DEFAULT true,
    approval    text NOT NULL CHECK (approval IN ('draft', 'submitted', 'approved', 'rejected')),
    invoice_id  uuid,
    PRIMARY KEY (tenant, entry_id),
    FOREIGN KEY (tenant, client_id) REFERENCES psa.clients (tenant, client_id),
    FOREIGN KEY (tenant, service_id) REFERENCES psa.services (tenant, service_id),
    FOREIGN KEY (tenant, invoice_id) REFERENCES psa.invoices (tenant, invoice_id)
)
"""

TIME_ENTRIES_BY_CLIENT = (
    "CREATE INDEX time_entries_by_client ON psa.time_entries (tenant, client_id, work_date)"
)
TIME_ENTRIES_BY_INVOICE = """
CREATE INDEX time_entries_by_invoice ON psa.time_entries (tenant, invoice_id) WHERE invoice_id IS NOT NULL
"""

# One PDF per invoice, whichever job asks for it first; one archive per job.
DOCUMENTS = """
CREATE TABLE psa.documents (
    tenant      text NOT NULL,
    document_id uuid NOT NULL DEFAULT gen_random_uuid(),
    kind        text NOT NULL CHECK (kind IN ('invoice_pdf', 'invoice_archive')),
    name        text NOT NULL,
    media_type  text NOT NULL,
    content     bytea NOT NULL,
    sha256      text NOT NULL,
    client_id   text,
    invoice_id  uuid,
    job_id      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, document_id),
    CHECK ((kind = 'invoice_pdf') = (invoice_id IS NOT NULL)),
    FOREIGN KEY (tenant, client_id) REFERENCES psa.clients (tenant, client_id),
    FOREIGN KEY (tenant, invoice_id) REFERENCES psa.invoices (tenant, invoice_id)
)
"""
# PDFs and archives are compressed already: TOAST need not try again.
DOCUMENTS_STORAGE = "ALTER TABLE psa.documents ALTER COLUMN content SET STORAGE EXTERNAL"
DOCUMENTS_OF_INVOICE = """
CREATE UNIQUE INDEX documents_of_invoice ON psa.documents (tenant, invoice_id) WHERE kind = 'invoice_pdf'
"""
DOCUMENTS_OF_JOB = """
CREATE UNIQUE INDEX documents_of_job ON psa.documents (tenant, job_id) WHERE kind = 'invoice_archive'
"""

INVOICE_EMAILS = """
CREATE TABLE psa.invoice_emails (
    tenant     text NOT NULL,
    job_id     text NOT NULL,
    invoice_id uuid NOT NULL,
    recipient  text NOT NULL,
    message_id text NOT NULL,
    status     text NOT NULL CHECK (status IN ('sending', 'sent', 'failed')),
    reply      text,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    settled_at timestamptz,
    PRIMARY KEY (tenant, job_id, invoice_id),
    FOREIGN KEY (tenant, invoice_id) REFERENCES psa.invoices (tenant, invoice_id)
)
"""

STATEMENTS = (
    PROVIDERS,
    CLIENTS,
    LOCATIONS,
    CONTACTS,
    TAX_RATES,
    SERVICES,
    CONTRACTS,
    CONTRACT_LINES,
    BUCKET_USAGE,
    INVOICE_COUNTERS,
    INVOICES,
    INVOICES_BY_CLIENT,
    INVOICE_LINES,
    INVOICE_TAXES,
    TIME_ENTRIES,
    TIME_ENTRIES_BY_CLIENT,
    TIME_ENTRIES_BY_INVOICE,
    DOCUMENTS,
    DOCUMENTS_STORAGE,
    DOCUMENTS_OF_INVOICE,
    DOCUMENTS_OF_JOB,
    INVOICE_EMAILS,
)

TABLES_LAST_FIRST = (
    "invoice_emails",
    "documents",
    "time_entries",
    "invoice_taxes",
    "invoice_lines",
    "invoices",
    "invoice_counters",
    "bucket_usage",
    "contract_lines",
    "contracts",
    "services",
    "tax_rates",
    "contacts",
    "client_locations",
    "clients",
    "providers",
)


def upgrade() -> None:
    op.execute("CREATE SCHEMA IF NOT EXISTS psa")
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for table in TABLES_LAST_FIRST:
        op.execute(f"DROP TABLE psa.{table}")
    # RESTRICT: what somebody else put into the schema stays, and the error names it.
    op.execute("DROP SCHEMA psa RESTRICT")
