"""The assets of a tenant: find those that could be meant, add new ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any
from uuid import UUID

from jobbridge.handlers.assets.models import AssetKind, Draft, Known
from jobbridge.handlers.assets.names import BLOCK_LIMIT, blocks_of, spelling_of
from jobbridge.handlers.sql import Connection, rows, rows_as, run

# Imports of one tenant write one after another, a batch at a time: so the second of two sees the first one's names, of
# which no unique constraint knows when they are nearly the same, and neither can wait for the other in a circle. Other
# writers need not know of it: what must be unique is.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('psa.assets ' || %(tenant)s::text, 0))"

CLIENTS = """
SELECT client_id
FROM psa.clients
WHERE tenant = %(tenant)s AND client_id = ANY(%(client_ids)s)
"""

_KNOWN = """
SELECT asset_id, client_id, name, kind, serial_number, asset_tag, mac_address, host_name, import_job_id, import_row
FROM psa.assets
WHERE tenant = %(tenant)s"""

# One index scan for each identifier; an asset that several of them find comes several times.
BY_IDENTIFIERS = f"""{_KNOWN} AND serial_number = ANY(%(serial_numbers)s)
UNION ALL{_KNOWN} AND asset_tag = ANY(%(asset_tags)s)
UNION ALL{_KNOWN} AND mac_address = ANY(%(mac_addresses)s)
UNION ALL{_KNOWN} AND client_id = ANY(%(host_clients)s) AND host_name = ANY(%(host_names)s)
"""

# At most so many of each block, see names.py.
BY_NAMES = """
SELECT DISTINCT asset.asset_id, asset.client_id, asset.name, asset.kind, asset.serial_number, asset.asset_tag,
    asset.mac_address, asset.host_name, asset.import_job_id, asset.import_row
FROM unnest(%(client_ids)s::text[], %(blocks)s::bigint[]) AS wanted (client_id, block)
CROSS JOIN LATERAL (
    SELECT name.asset_id
    FROM psa.asset_names AS name
    WHERE name.tenant = %(tenant)s AND name.client_id = wanted.client_id AND name.block = wanted.block
    ORDER BY name.sequence
    LIMIT %(limit)s
) AS found
JOIN psa.assets AS asset ON asset.tenant = %(tenant)s AND asset.asset_id = found.asset_id
"""

# What another writer has added meanwhile gives way, and is not in what this returns.
ADD = """
INSERT INTO psa.assets (tenant, asset_id, client_id, name, kind, serial_number, asset_tag, mac_address, host_name,
    manufacturer, model, location, purchased_on, warranty_ends_on, notes, import_job_id, import_row)
SELECT %(tenant)s, draft.asset_id, draft.client_id, draft.name, draft.kind, draft.serial_number, draft.asset_tag,
    draft.mac_address, draft.host_name, draft.manufacturer, draft.model, draft.location, draft.purchased_on,
    draft.warranty_ends_on, draft.notes, %(job_id)s, draft.import_row
FROM unnest(%(asset_id)s::uuid[], %(client_id)s::text[], %(name)s::text[], %(kind)s::text[], %(serial_number)s::text[],
    %(asset_tag)s::text[], %(mac_address)s::text[], %(host_name)s::text[], %(manufacturer)s::text[], %(model)s::text[],
    %(location)s::text[], %(purchased_on)s::date[], %(warranty_ends_on)s::date[], %(notes)s::text[],
    %(import_row)s::integer[])
    AS draft (asset_id, client_id, name, kind, serial_number, asset_tag, mac_address, host_name, manufacturer, model,
    location, purchased_on, warranty_ends_on, notes, import_row)
ON CONFLICT DO NOTHING
RETURNING asset_id
"""

ADD_NAMES = """
INSERT INTO psa.asset_names (tenant, client_id, block, asset_id)
SELECT %(tenant)s, name.client_id, name.block, name.asset_id
FROM unnest(%(client_ids)s::text[], %(blocks)s::bigint[], %(asset_ids)s::uuid[]) AS name (client_id, block, asset_id)
"""

_COLUMNS = (
    "client_id", "name", "kind", "serial_number", "asset_tag", "mac_address", "host_name", "manufacturer", "model",
    "location", "purchased_on", "warranty_ends_on", "notes",
)  # fmt: skip


def lock_assets(connection: Connection, tenant: str) -> None:
    """Wait until no other import of the tenant writes; until the transaction ends, none does."""
    run(connection, LOCK, {"tenant": tenant})


def existing_clients(connection: Connection, tenant: str, client_ids: Collection[str]) -> set[str]:
    found = rows(connection, CLIENTS, {"tenant": tenant, "client_ids": list(client_ids)})
    return {client_id for (client_id,) in found}


def possible_duplicates(
    connection: Connection, tenant: str, job_id: str, drafts: Sequence[Draft], *, with_names: bool
) -> list[Known]:
    """Give the assets that share an identifier, or a block of the name, with one of the drafts."""
    known = partial(_known, job_id)
    found = rows_as(known, connection, BY_IDENTIFIERS, {"tenant": tenant, **_identifiers(drafts)})
    if with_names:
        blocks = {
            (draft.client_id, block) for draft in drafts for block in blocks_of(spelling_of(draft.name))
        }
        parameters = {
            "tenant": tenant,
            "client_ids": [client_id for client_id, _ in blocks],
            "blocks": [block for _, block in blocks],
            "limit": BLOCK_LIMIT,
        }
        found += rows_as(known, connection, BY_NAMES, parameters)
    return found


def add_assets(
    connection: Connection, tenant: str, job_id: str, drafts: Sequence[tuple[UUID, Draft]]
) -> set[UUID]:
    """Add new assets.

    Returns:
        The ids of those that were added; the others met an asset that was added meanwhile.
    """
    parameters: dict[str, Any] = {
        name: [getattr(draft, name) for _, draft in drafts] for name in _COLUMNS
    } | {
        "tenant": tenant,
        "job_id": job_id,
        "asset_id": [asset_id for asset_id, _ in drafts],
        "import_row": [draft.row.number for _, draft in drafts],
    }
    parameters["kind"] = [str(kind) for kind in parameters["kind"]]
    added = {asset_id for (asset_id,) in rows(connection, ADD, parameters)}
    names = [
        (draft.client_id, block, asset_id)
        for asset_id, draft in drafts
        if asset_id in added
        for block in blocks_of(spelling_of(draft.name))
    ]
    client_ids, blocks, asset_ids = map(list, zip(*names, strict=True)) if names else ([], [], [])
    run(
        connection,
        ADD_NAMES,
        {"tenant": tenant, "client_ids": client_ids, "blocks": blocks, "asset_ids": asset_ids},
    )
    return added


def _identifiers(drafts: Sequence[Draft]) -> dict[str, list[str]]:
    return {
        "serial_numbers": [draft.serial_number for draft in drafts if draft.serial_number],
        "asset_tags": [draft.asset_tag for draft in drafts if draft.asset_tag],
        "mac_addresses": [draft.mac_address for draft in drafts if draft.mac_address],
        "host_names": [draft.host_name for draft in drafts if draft.host_name],
        "host_clients": sorted({draft.client_id for draft in drafts if draft.host_name}),
    }


def _known(
    job_id: str, *, kind: str, import_job_id: str | None, import_row: int | None, **columns: Any
) -> Known:
    made_in = import_row if import_job_id == job_id else None
    return Known(kind=AssetKind(kind), import_row=made_in, **columns)
