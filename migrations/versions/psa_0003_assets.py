"""Files in pieces, assets and their imports; calendar subscriptions and channels, and how their providers do.

Every key contains the tenant. What makes two assets the same is unique here, so that two imports at once, or a person
beside an import, cannot add one twice: the importer writes these values in one spelling (upper case, without spaces;
lower case for MAC addresses and host names), and so must everybody else.
"""

from __future__ import annotations

from alembic import op

revision = "psa_0003_assets"
down_revision = "psa_0002_credits"
branch_labels = None
depends_on = None

# One report per import job, whichever attempt makes it.
FILES = """
CREATE TABLE psa.files (
    tenant     text NOT NULL,
    file_id    uuid NOT NULL DEFAULT gen_random_uuid(),
    kind       text NOT NULL CHECK (kind IN ('asset_upload', 'asset_import_report')),
    name       text NOT NULL,
    media_type text NOT NULL,
    size       bigint NOT NULL CHECK (size >= 0),
    sha256     text NOT NULL,
    job_id     text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, file_id),
    UNIQUE (tenant, job_id, kind)
)
"""

FILE_PIECES = """
CREATE TABLE psa.file_pieces (
    tenant   text NOT NULL,
    file_id  uuid NOT NULL,
    position integer NOT NULL CHECK (position >= 0),
    content  bytea NOT NULL,
    PRIMARY KEY (tenant, file_id, position),
    FOREIGN KEY (tenant, file_id) REFERENCES psa.files (tenant, file_id)
)
"""

# Many devices have no serial number, tag, MAC address or host name; NULLs are all different.
ASSETS = """
CREATE TABLE psa.assets (
    tenant           text NOT NULL,
    asset_id         uuid NOT NULL DEFAULT gen_random_uuid(),
    client_id        text NOT NULL,
    name             text NOT NULL,
    kind             text NOT NULL CHECK (
        kind IN ('workstation', 'server', 'network_device', 'mobile_device', 'printer', 'other')
    ),
    serial_number    text,
    asset_tag        text,
    mac_address      text,
    host_name        text,
    manufacturer     text,
    model            text,
    location         text,
    purchased_on     date,
    warranty_ends_on date,
    notes            text,
    import_job_id    text,
    import_row       integer,
    created_at       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, asset_id),
    UNIQUE (tenant, serial_number),
    UNIQUE (tenant, asset_tag),
    UNIQUE (tenant, mac_address),
    UNIQUE (tenant, client_id, host_name),
    FOREIGN KEY (tenant, client_id) REFERENCES psa.clients (tenant, client_id)
)
"""

# Where an asset's name is looked up by names that are nearly the same: see handlers/assets/names.py. sequence: the
# first ones of a block are compared, so it must be certain which those are.
ASSET_NAMES = """
CREATE TABLE psa.asset_names (
    tenant    text NOT NULL,
    client_id text NOT NULL,
    block     bigint NOT NULL,
    sequence  bigint GENERATED ALWAYS AS IDENTITY,
    asset_id  uuid NOT NULL,
    PRIMARY KEY (tenant, client_id, block, sequence)
)
"""

ASSET_IMPORTS = """
CREATE TABLE psa.asset_imports (
    tenant      text NOT NULL,
    job_id      text NOT NULL,
    file_id     uuid NOT NULL,
    last_row    integer NOT NULL DEFAULT 1,
    created     integer NOT NULL DEFAULT 0,
    duplicates  integer NOT NULL DEFAULT 0,
    invalid     integer NOT NULL DEFAULT 0,
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (tenant, job_id),
    FOREIGN KEY (tenant, file_id) REFERENCES psa.files (tenant, file_id)
)
"""

# asset_id: the asset that was created, or the one that was there. cells: of rows that were not created only.
ASSET_IMPORT_ROWS = """
CREATE TABLE psa.asset_import_rows (
    tenant     text NOT NULL,
    job_id     text NOT NULL,
    row_number integer NOT NULL,
    outcome    text NOT NULL CHECK (outcome IN ('created', 'duplicate', 'invalid')),
    asset_id   uuid,
    matched_by text CHECK (matched_by IN ('serial_number', 'asset_tag', 'mac_address', 'host_name', 'name')),
    reason     text,
    cells      text[],
    PRIMARY KEY (tenant, job_id, row_number),
    CHECK ((outcome = 'duplicate') = (matched_by IS NOT NULL))
)
"""

# resource: what is watched: a Graph resource, or a Google calendar's id. secret_name: which secret, never the secret.
CALENDAR_PROVIDERS = """
CREATE TABLE psa.calendar_providers (
    tenant       text NOT NULL,
    provider_id  text NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('microsoft', 'google')),
    name         text NOT NULL,
    resource     text NOT NULL,
    secret_name  text NOT NULL,
    directory_id text,
    is_active    boolean NOT NULL DEFAULT true,
    PRIMARY KEY (tenant, provider_id),
    CHECK ((kind = 'microsoft') = (directory_id IS NOT NULL))
)
"""

# making_job is set, and committed, before Graph is asked for a new subscription.
CALENDAR_SUBSCRIPTIONS = """
CREATE TABLE psa.calendar_subscriptions (
    tenant          text NOT NULL,
    provider_id     text NOT NULL,
    subscription_id text,
    expires_at      timestamptz,
    making_job      text,
    making_since    timestamptz,
    PRIMARY KEY (tenant, provider_id),
    CHECK ((subscription_id IS NULL) = (expires_at IS NULL)),
    CHECK ((making_job IS NULL) = (making_since IS NULL)),
    FOREIGN KEY (tenant, provider_id) REFERENCES psa.calendar_providers (tenant, provider_id)
)
"""

# Google knows a channel under an id that we choose, and is told to stop it by that and the resource's id, which is
# in its answer. Rows are written before Google is asked, and go when it was told to stop.
CALENDAR_CHANNELS = """
CREATE TABLE psa.calendar_channels (
    tenant      text NOT NULL,
    channel_id  uuid NOT NULL,
    provider_id text NOT NULL,
    status      text NOT NULL CHECK (status IN ('opening', 'open', 'closing')),
    resource_id text,
    expires_at  timestamptz,
    job_id      text NOT NULL,
    since       timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, channel_id),
    CHECK (status <> 'open' OR (resource_id IS NOT NULL AND expires_at IS NOT NULL)),
    FOREIGN KEY (tenant, provider_id) REFERENCES psa.calendar_providers (tenant, provider_id)
)
"""
ONE_OPEN_CHANNEL = """
CREATE UNIQUE INDEX calendar_channels_in_use ON psa.calendar_channels (tenant, provider_id, status)
WHERE status <> 'closing'
"""

# last_failed_job: the attempts of one job count as one failure.
CALENDAR_HEALTH = """
CREATE TABLE psa.calendar_health (
    tenant            text NOT NULL,
    provider_id       text NOT NULL,
    status            text NOT NULL DEFAULT 'healthy' CHECK (status IN ('healthy', 'failing')),
    failures_in_a_row integer NOT NULL DEFAULT 0,
    last_error        text,
    last_failed_job   text,
    last_failed_at    timestamptz,
    last_succeeded_at timestamptz,
    paused_until      timestamptz,
    PRIMARY KEY (tenant, provider_id),
    FOREIGN KEY (tenant, provider_id) REFERENCES psa.calendar_providers (tenant, provider_id)
)
"""

STATEMENTS = (
    FILES,
    FILE_PIECES,
    ASSETS,
    ASSET_NAMES,
    ASSET_IMPORTS,
    ASSET_IMPORT_ROWS,
    CALENDAR_PROVIDERS,
    CALENDAR_SUBSCRIPTIONS,
    CALENDAR_CHANNELS,
    ONE_OPEN_CHANNEL,
    CALENDAR_HEALTH,
)

TABLES_LAST_FIRST = (
    "calendar_health",
    "calendar_channels",
    "calendar_subscriptions",
    "calendar_providers",
    "asset_import_rows",
    "asset_imports",
    "asset_names",
    "assets",
    "file_pieces",
    "files",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for table in TABLES_LAST_FIRST:
        op.execute(f"DROP TABLE psa.{table}")
