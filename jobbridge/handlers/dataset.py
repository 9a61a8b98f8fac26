"""The data set that is shipped: one provider with ten clients, their contracts, and the time of October 2026.

The CSV files in `data` have no tenant: the importer adds it, so the same books can be had under several tenants.
Empty fields are NULL. What is there already stays as it is, so a second import changes nothing, and billed time stays
billed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from importlib import resources
from io import StringIO

import psycopg
from psycopg import sql

from jobbridge.errors import NotMigrated
from jobbridge.handlers.files import ASSET_UPLOAD, StoredFile, keep_file
from jobbridge.handlers.invoicing.models import Period
from jobbridge.handlers.sql import Connection

#: The month that the time entries are of.
MONTH = Period(start=date(2026, 10, 1), end=date(2026, 10, 31))

#: The day, and the instant, as of which the daily jobs have something to do.
TODAY = date(2026, 10, 31)
NOON = datetime(2026, 10, 31, 12, tzinfo=UTC)

#: Clients that can be billed for MONTH; in the order in which the demo bills them.
BILLABLE_CLIENTS = ("northwind", "lakeside", "greenfield", "soehne", "brigid", "oakfield")

#: A client whose month comes to nothing, and whose rule then wants no invoice.
FREE_CLIENT = "quayside"

#: Clients that are refused, each for a reason of its own.
CLIENT_WITHOUT_ADDRESS = "ballymore"
CLIENT_WITH_UNAPPROVED_TIME = "foyle"
CLIENT_WITHOUT_RATE = "tara"

# Referenced tables come first.
TABLES = (
    "providers",
    "clients",
    "client_locations",
    "contacts",
    "tax_rates",
    "services",
    "contracts",
    "contract_lines",
    "bucket_usage",
    "time_entries",
    "credit_accounts",
    "credit_tracking",
    "credit_transactions",
    "workflow_form_definitions",
    "workflow_forms",
    "ai_session_keys",
    "calendar_providers",
)

#: The columns of the devices' file that are not called as the fields are.
ASSET_MAPPING = {
    "name": "Device",
    "clientId": "Client",
    "kind": "Type",
    "serialNumber": "Serial",
    "assetTag": "Tag",
    "macAddress": "MAC",
    "hostName": "Hostname",
    "manufacturer": "Maker",
    "purchasedOn": "Bought",
}

# Constraints and defaults are left behind: the file's columns only.
STAGE = "CREATE TEMPORARY TABLE {stage} ON COMMIT DROP AS SELECT {columns} FROM {table} WITH NO DATA"
COPY = "COPY {stage} ({columns}) FROM STDIN (FORMAT csv, HEADER true)"
TAKE = """
INSERT INTO {table} (tenant, {columns})
SELECT %(tenant)s, {columns}
FROM {stage}
ON CONFLICT DO NOTHING
"""
DROP_STAGE = "DROP TABLE {stage}"


def import_dataset(connection: Connection, tenant: str) -> dict[str, int]:
    """Import the data set for a tenant, in one transaction (the caller's, if there is one).

    Returns:
        By table, the rows that were not there before.

    Raises:
        NotMigrated: The tables of the handlers are missing.
    """
    with _tables_exist(), connection.transaction():
        return {table: _import_table(connection, tenant, table) for table in TABLES}


def upload_devices(connection: Connection, tenant: str) -> StoredFile:
    """Upload a list of devices for `asset_import`: of 22 rows, 14 are new, 5 are there already, 3 are invalid."""
    content = _file("asset_upload").encode()
    return keep_file(
        connection, tenant, kind=ASSET_UPLOAD, name="devices.csv", media_type="text/csv", content=[content]
    )


def columns_of(table: str) -> Sequence[str]:
    """Give the columns of a table's file."""
    return next(csv.reader(StringIO(_file(table))))


def _import_table(connection: Connection, tenant: str, table: str) -> int:
    names = {
        "table": sql.Identifier("psa", table),
        "stage": sql.Identifier(f"import_{table}"),
        "columns": sql.SQL(", ").join(map(sql.Identifier, columns_of(table))),
    }
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL(STAGE).format(**names))
        with cursor.copy(sql.SQL(COPY).format(**names)) as copy:
            copy.write(_file(table))
        imported = cursor.execute(sql.SQL(TAKE).format(**names), {"tenant": tenant}).rowcount
        cursor.execute(sql.SQL(DROP_STAGE).format(**names))
    return imported


def _file(table: str) -> str:
    return (resources.files(__package__) / "data" / f"{table}.csv").read_text(encoding="utf-8")


@contextmanager
def _tables_exist() -> Iterator[None]:
    try:
        yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise NotMigrated(f"The tables of the handlers are missing: {error.diag.message_primary}.") from error
